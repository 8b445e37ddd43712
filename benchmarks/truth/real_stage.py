"""Real runs of training scripts on a CPU: the stand-ins of a rehearsal, except that models, steps and saving are real.

A name of the Hub resolves to a tiny random model of its family, and data to the rows that a rehearsal makes up. Everything else
is what the installed libraries do. bitsandbytes' optimizers, which need a GPU, are torch's.
"""

from __future__ import annotations

import contextlib
import functools
import re
import sys
import tempfile
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from kbitlint.audit.options import options_of
from kbitlint.rehearsal.command import Command
from kbitlint.rehearsal.inside import absent, script
from kbitlint.rehearsal.inside.imports import after_import, replace
from kbitlint.rehearsal.inside.record import Record
from kbitlint.rehearsal.messages import Request
from kbitlint.rehearsal.stand_ins import data, devices, models, services, unsloth, weight_files, words

if TYPE_CHECKING:
    from collections.abc import Sequence

#: a field of a config -> its size in a tiny model; ``_shrunk`` looks into nested configs, too
_SMALL = {
    **dict.fromkeys(("hidden_size", "d_model", "n_embd", "dim", "word_embed_proj_dim", "embedding_size"), 64),
    **dict.fromkeys(
        ("intermediate_size", "ffn_dim", "d_ff", "encoder_ffn_dim", "decoder_ffn_dim", "n_inner", "hidden_dim"), 64
    ),
    **dict.fromkeys(("moe_intermediate_size", "shared_expert_intermediate_size", "expert_ffn_hidden_size"), 64),
    **dict.fromkeys(("num_hidden_layers", "n_layer", "n_layers", "num_layers", "depth"), 2),
    **dict.fromkeys(("encoder_layers", "decoder_layers", "num_decoder_layers"), 2),
    **dict.fromkeys(("num_attention_heads", "n_head", "n_heads", "num_heads"), 4),
    **dict.fromkeys(("encoder_attention_heads", "decoder_attention_heads"), 4),
    **dict.fromkeys(("num_key_value_heads", "num_kv_heads"), 2),
    **dict.fromkeys(("head_dim", "d_kv", "kv_channels"), 16),
    **dict.fromkeys(("num_local_experts", "num_experts", "n_routed_experts"), 4),
    "rotary_dim": 16,
}


class _Mirror:
    """The file system as it is.

    Args:
        folder: The folder of the script.
    """

    def __init__(self, folder: str) -> None:
        self.folder = self.root = folder

    def open_up(self, place: Any) -> str:
        """Return the path."""
        return str(place)

    def for_writing(self, place: str, **_: Any) -> str:
        """Return the path."""
        return place

    inside = real = for_reading = own_entries = open_up


class _Record(Record):
    """A record that sends nothing."""

    def send(self, message: Any) -> None:
        """Drop a message."""


def prepare(folder: str = "/tmp") -> Record:  # noqa: S108  # the folder of each script follows
    """Put the stand-ins in place, and return their record. The libraries are imported afterwards."""
    request = Request(Command("train.py"), folder, folder, "a100", options_of({}), 64)
    record = _Record(request, _Mirror(folder), -1)  # type: ignore[arg-type]  # what it has suffices
    replace(torch, "load", weight_files._torch_load)  # noqa: SLF001  # of this program
    devices.install(record)
    import transformers  # after the functions that it imports by name are replaced

    base = transformers.configuration_utils.PreTrainedConfig
    replace(base, "get_config_dict", lambda original: _small_config(models._config_dict(record, original)))  # noqa: SLF001  # of this program
    replace(transformers.GenerationConfig, "from_pretrained", functools.partial(models._generation, record))  # noqa: SLF001  # see above
    replace(transformers.modeling_utils.PreTrainedModel, "from_pretrained", _loading)
    words.install(record, transformers)
    after_import("datasets", lambda module: data.install(record, module))
    for name in ("autocast", "amp.autocast_mode.autocast", "amp.autocast"):
        _on_cpu(name)
    after_import("bitsandbytes.optim", _optimizers)
    services.install(record)
    absent.install(record)
    unsloth.install(record)
    return record


def _on_cpu(name: str) -> None:
    owner = functools.reduce(getattr, name.split("."), torch)
    original = owner.__init__
    if getattr(original, "on_cpu", False):
        return

    def __init__(self: Any, device_type: str = "", *arguments: Any, **options: Any) -> None:  # noqa: ARG001, N807  # the names that torch's own has
        original(self, "cpu", *arguments, **options)

    __init__.on_cpu = True  # type: ignore[attr-defined]  # read above
    owner.__init__ = __init__


def _optimizers(module: Any) -> None:
    """Replace the optimizers of bitsandbytes by torch's AdamW, on which the states of 8 bits make no difference to an end."""

    class AdamW(torch.optim.AdamW):
        def __init__(self, params: Any, lr: float = 1e-3, **options: Any) -> None:
            kept = {key: one for key, one in options.items() if key in ("betas", "eps", "weight_decay")}
            super().__init__(params, lr=lr, **kept)

    for name in vars(module).copy():
        if name.startswith(("Adam", "Paged", "Lion")):
            setattr(module, name, AdamW)


def _small_config(made: Any) -> Any:
    def get_config_dict(cls: Any, name: Any, **options: Any) -> Any:
        found, rest = made(cls, name, **options)
        return (found if Path(str(name)).is_dir() else _shrunk(found)), rest

    return get_config_dict


def _shrunk(config: Any) -> Any:
    """Return the content of a config with small sizes, where it names them."""
    small = {
        key: _shrunk(one) if isinstance(one, dict) else _SMALL.get(key, one) if isinstance(one, int) else one
        for key, one in config.items()
    }
    if small.get("num_key_value_heads") is None:
        small.pop("num_key_value_heads", None)
    return small


@functools.cache
def _folder(cls: Any, name: str, text: str) -> str:
    """Return the folder of a tiny random model."""
    import json  # only here

    config = cls.config_class.from_dict(json.loads(text))
    for key, size in _SMALL.items():
        for one in (config, *(getattr(config, part, None) for part in ("text_config", "vision_config", "audio_config"))):
            if one is not None and isinstance(getattr(one, key, None), int):
                with contextlib.suppress(AttributeError):  # a property, such as Falcon's head_dim
                    setattr(one, key, size)
    for key in ("quantization_config",):
        if hasattr(config, key):
            delattr(config, key)
    if isinstance(getattr(config, "layer_types", None), list):
        config.layer_types = config.layer_types[:2]
    torch.manual_seed(0)
    folder = tempfile.mkdtemp(prefix=f"kbitlint-real-{name.rpartition('/')[2]}-")
    model = cls(config).to(torch.bfloat16)
    held = {key: one for key, one in model.state_dict().items() if not _is_new(model, key)}
    model.save_pretrained(folder, state_dict=held)
    return folder


def _is_new(model: nn.Module, key: str) -> bool:
    """Return whether a parameter is of a head that no checkpoint of its family has."""
    return re.search(r"For\w+Classification|ForQuestionAnswering", type(model).__name__) is not None and not key.startswith(
        f"{model.base_model_prefix}."
    )


def _loading(original: Any) -> Any:
    def from_pretrained(cls: Any, name: Any = None, *arguments: Any, **options: Any) -> Any:
        if name is None or Path(str(name)).is_dir():
            return original(cls, name, *arguments, **options)
        config = options.get("config")
        if not isinstance(config, cls.config_class):
            config = cls.config_class.from_pretrained(name)
        packed = getattr(config, "quantization_config", None)
        if packed is not None and "quantization_config" not in options:
            from transformers import BitsAndBytesConfig  # see above

            kept = packed if isinstance(packed, dict) else packed.to_dict()
            options["quantization_config"] = BitsAndBytesConfig(
                **{key: one for key, one in kept.items() if "bnb_4bit" in key or "load_in" in key}
            )
        folder = _folder(cls, str(name), config.to_json_string(use_diff=False))
        made = cls.config_class.from_pretrained(folder)
        for key, one in config.to_diff_dict().items():
            if key not in _SMALL and not isinstance(one, dict) and key not in ("quantization_config", "dtype", "layer_types"):
                setattr(made, key, one)
        options["config"] = made
        options.pop("device_map", None)
        options["device_map"] = {"": "cpu"}
        loaded = original(cls, folder, *arguments, **options)
        model = loaded[0] if isinstance(loaded, tuple) else loaded
        model.config._name_or_path = model.name_or_path = str(name)  # noqa: SLF001  # where transformers keeps it
        return loaded

    return from_pretrained


class _Watch:
    """The parameters that are trained: those of the outermost module of the last pass, at each backward pass."""

    def __init__(self) -> None:
        self.trained: set[str] = set()
        self.last: nn.Module | None = None
        self.depth = 0

    def install(self) -> None:
        """Watch passes from now on."""
        replace(nn.Module, "__call__", self._call)
        replace(torch.Tensor, "backward", self._backward)

    def _call(self, original: Any) -> Any:
        @functools.wraps(original)
        def __call__(module: nn.Module, *arguments: Any, **options: Any) -> Any:  # noqa: N807  # the name that torch's own has
            if self.depth == 0 and torch.is_grad_enabled() and not self._is_part(module):
                self.last = module
            self.depth += 1
            try:
                return original(module, *arguments, **options)
            finally:
                self.depth -= 1

        return __call__

    def _is_part(self, module: nn.Module) -> bool:
        return self.last is not None and module is not self.last and any(one is module for one in self.last.modules())

    def _backward(self, original: Any) -> Any:
        @functools.wraps(original)
        def backward(tensor: Any, *arguments: Any, **options: Any) -> Any:
            if self.last is not None:
                self.trained |= {name for name, one in self.last.named_parameters() if one.requires_grad}
            return original(tensor, *arguments, **options)

        return backward


def outcome(record: Record, name: str, argv: Sequence[str]) -> dict[str, Any]:
    """Run a script of the working folder in this process, and return how it ends and what it trains."""
    import dataclasses  # only here

    folder = str(Path.cwd())
    command = Command(name, tuple(argv))
    record.request = dataclasses.replace(record.request, command=command, folder=folder, working_folder=folder)
    record.mirror = _Mirror(folder)  # type: ignore[assignment]  # see above
    watch = _Watch()
    watch.install()
    found: dict[str, Any] = {"error": "", "line": None}
    try:
        script.run(record.request, record.mirror, record.cells)
    except SystemExit as ended:
        found["exit"] = str(ended.code)
    except BaseException as error:  # noqa: BLE001  # every end is an outcome
        traceback.print_exc()
        place = record.users_frame(error)
        line = record.in_cell(place[1])[1] if place else None
        found = {"error": f"{type(error).__name__}: {' '.join(str(error).split())[:300]}", "line": line}
    sys.stdout.flush()
    return {**found, "trained": sorted(watch.trained), "real": "trains" if watch.trained else "trains nothing"}
