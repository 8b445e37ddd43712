"""Models: every ``from_pretrained`` builds the quantized model on the meta device, from its config and without weights."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from kbitlint.errors import KbitlintError
from kbitlint.model.attributes import mark_inference
from kbitlint.model.build.factory import built_instead
from kbitlint.model.build.packed_weights import unpackable
from kbitlint.rehearsal.inside.artefacts import NotAtHandError
from kbitlint.rehearsal.inside.imports import replace
from kbitlint.rehearsal.stand_ins import tensors
from kbitlint.rehearsal.stand_ins.adapters import is_without_weights, make_unpackable
from kbitlint.upstream.checkpoints import checkpoint_of

if TYPE_CHECKING:
    from kbitlint.rehearsal.inside.record import Record

_KEPT = [unpackable()]
#: arguments that say where a config is, and are no fields of it
_LOADING = frozenset(
    (
        *("cache_dir", "force_download", "local_files_only", "token", "revision", "trust_remote_code", "subfolder", "proxies"),
        "code_revision",
    )
)


def install(record: Record, transformers: Any) -> None:
    """Replace the loading of configs and models of transformers, until the process ends."""
    _KEPT[0].__enter__()  # never left: the process ends with the script
    config = transformers.configuration_utils.PreTrainedConfig
    replace(config, "get_config_dict", lambda original: _config_dict(record, original))
    generation = transformers.generation.configuration_utils.GenerationConfig
    replace(generation, "from_pretrained", lambda original: _generation(record, original))
    model = transformers.modeling_utils.PreTrainedModel
    replace(model, "from_pretrained", lambda original: _loading(record, original))
    replace(model, "resize_token_embeddings", _resizing)
    mixin = transformers.modeling_utils.ModuleUtilsMixin
    replace(mixin, "device", lambda original: _device(record, original))
    replace(
        model,
        "from_config" if "from_config" in vars(model) else "_from_config",
        lambda original: _from_config(record, original),
    )


def _device(record: Record, original: Any) -> Any:
    """Return the property of a model that names its device: the GPU, where its caller places data by it."""

    def device(self: Any) -> torch.device:
        asks = not record.paused and tensors.asks_for_place(record, sys._getframe(1))  # noqa: SLF001  # the caller
        return torch.device("cuda", 0) if asks and is_without_weights(self) else original.fget(self)

    return property(device)


def _config_dict(record: Record, original: Any) -> Any:
    def get_config_dict(cls: Any, name: Any, **options: Any) -> Any:
        try:
            return original(cls, name, **options)
        except (OSError, ValueError) as error:
            if isinstance(error, ValueError) and type(error).__name__ != "HFValidationError":  # a path that is not here
                raise
            known = None if Path(str(name)).is_dir() else checkpoint_of(str(name))
            if known is None:
                if Path(str(name)).is_dir():
                    raise
                raise NotAtHandError(f"the config of {name} is neither on this machine nor in the table of families") from error
        how = "from the table of families" if known.exact else "its architecture, in the default size"
        record.stand_in(f"the config of {name} ({how})")
        rest = {key: value for key, value in options.items() if key not in _LOADING and not key.startswith("_")}
        return {**known.config, "_name_or_path": str(name)}, rest

    return get_config_dict


def _generation(record: Record, original: Any) -> Any:
    def from_pretrained(cls: Any, name: Any, *arguments: Any, **options: Any) -> Any:
        try:
            return original(cls, name, *arguments, **options)
        except (OSError, ValueError):
            known = checkpoint_of(str(name))
            if known is None:
                raise
        record.stand_in(f"the generation config of {name}")
        held = known.config
        return cls(**{key: held[key] for key in ("bos_token_id", "eos_token_id", "pad_token_id") if key in held})

    return from_pretrained


def _loading(record: Record, original: Any) -> Any:
    def from_pretrained(cls: Any, name: Any = None, *arguments: Any, **options: Any) -> Any:
        if record.paused:
            return original(cls, name, *arguments, **options)
        placed = options.get("device_map")
        _without_flash(record, options.get("config"))
        try:
            with torch.inference_mode(
                mode=False
            ):  # on meta, PEFT's prepare cannot cast an inference tensor as it does on a CPU
                made = built_instead(cls, name, dict(options))
        except KbitlintError as error:
            raise NotAtHandError(str(error)) from error
        model = made[0] if isinstance(made, tuple) else made
        make_unpackable(model)
        if torch.is_inference_mode_enabled():
            mark_inference(model)
        if getattr(model, "hf_quantizer", None) is not None or placed is not None:
            model.hf_device_map = _map_of(placed, model)
        return made

    return from_pretrained


def _without_flash(record: Record, config: Any) -> None:
    """Ask a config for torch's attention where it asks for one that needs its own package and a GPU."""
    if "flash" in str(getattr(config, "_attn_implementation", None) or ""):
        config._attn_implementation = "sdpa"  # noqa: SLF001  # where transformers keeps the argument
        record.stand_in("flash attention (torch's own)")


def _map_of(placed: Any, model: nn.Module) -> dict[str, Any]:
    """Return the device map that a load on GPUs with room for all of the model records."""
    if isinstance(placed, dict):
        return dict(placed)
    if isinstance(placed, (torch.device, int)) or (isinstance(placed, str) and placed in ("cpu", "cuda")):
        return {"": torch.device(placed)}
    if placed is not None and torch.cuda.device_count() > 1:
        from accelerate import infer_auto_device_map  # asked only where there are several GPUs
        from accelerate.utils import get_balanced_memory  # see above

        whole: Any = {"no_split_module_classes": list(getattr(model, "_no_split_modules", None) or ())}
        return dict(infer_auto_device_map(model, max_memory=get_balanced_memory(model, **whole), **whole))
    return {"": 0}


def _from_config(record: Record, original: Any) -> Any:
    def from_config(cls: Any, config: Any, *arguments: Any, **options: Any) -> nn.Module:
        if record.paused or _is_small(config):
            return original(cls, config, *arguments, **options)  # type: ignore[no-any-return]  # a model
        with torch.device("meta"):
            made: nn.Module = original(cls, config, *arguments, **options)
        return made

    return from_config


def _is_small(config: Any) -> bool:
    """Return whether a model made from a config alone fits into memory beside everything else, so that it may be real."""
    width, depth = getattr(config, "hidden_size", None), getattr(config, "num_hidden_layers", None)
    rows = getattr(config, "vocab_size", None) or 0
    return isinstance(width, int) and isinstance(depth, int) and 12 * width * width * depth + rows * width < 50_000_000


def _resizing(original: Any) -> Any:
    def resize_token_embeddings(
        self: Any, new_num_tokens: Any = None, pad_to_multiple_of: Any = None, *rest: Any, **more: Any
    ) -> Any:
        embedding = self.get_input_embeddings()
        weight = getattr(embedding, "weight", None)
        if weight is None or not weight.is_meta:
            return original(self, new_num_tokens, pad_to_multiple_of, *rest, **more)
        more.pop("mean_resizing", None)  # the mean of rows without values
        with torch.device("meta"):
            return original(self, new_num_tokens, pad_to_multiple_of, mean_resizing=False, **more)

    return resize_token_embeddings
