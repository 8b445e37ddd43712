"""Calls of the user's factory, either unchanged or with ``from_pretrained`` replaced by a build on the meta device."""

from __future__ import annotations

import importlib.util
import os
import re
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from kbitlint.errors import KbitlintError, TargetError, one_line
from kbitlint.extras import quiet_import
from kbitlint.files.hub import offline_if_unreached
from kbitlint.model.build import load_adapters
from kbitlint.model.build.checkpoint_config import Source, dtype_of, major_version
from kbitlint.model.build.meta import instantiate
from kbitlint.model.build.new_heads import unpack_new
from kbitlint.model.build.packed_weights import unpackable
from kbitlint.model.isolation import isolated

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping


@contextmanager
def without_weights() -> Iterator[None]:
    """Replace every model's ``from_pretrained`` by a build on the meta device, inside the ``with`` statement.

    Only the load is replaced. The rest of the user's code, such as PEFT, runs on a model without weights. Without CUDA,
    ``torch.cuda.current_device()`` returns 0, because device maps are written with it.
    """
    from transformers import PreTrainedModel  # takes a second to import

    original = PreTrainedModel.__dict__["from_pretrained"]
    current_device = torch.cuda.current_device

    def from_pretrained(cls: Any, name: Any = None, *_: Any, **kwargs: Any) -> nn.Module:
        return built_instead(cls, name, kwargs)

    PreTrainedModel.from_pretrained = classmethod(from_pretrained)
    if not torch.cuda.is_available():
        torch.cuda.current_device = lambda: 0
    try:
        with unpackable():
            yield
    finally:
        PreTrainedModel.from_pretrained = original
        torch.cuda.current_device = current_device


#: Arguments of from_pretrained that locate and place weights. The structure of the model does not depend on them.
_LOADING = frozenset(
    [
        "attn_implementation",
        "cache_dir",
        "code_revision",
        "device_map",
        "disable_mmap",
        "force_download",
        "from_flax",
        "from_tf",
        "gguf_file",
        "ignore_mismatched_sizes",
        "key_mapping",
        "local_files_only",
        "low_cpu_mem_usage",
        "max_memory",
        "offload_buffers",
        "offload_folder",
        "offload_state_dict",
        "output_loading_info",
        "state_dict",
        "subfolder",
        "token",
        "tp_plan",
        "tp_size",
        "use_kernels",
        "use_safetensors",
        "variant",
        "weights_only",
        "adapter_kwargs",
        "adapter_name",
        "commit_hash",
        "experts_implementation",
        "mirror",
        "proxies",
        "distributed_config",
        "device_mesh",
        "kernel_config",
        "allow_all_kernels",
        "fusion_config",
    ]
)


def built_instead(cls: Any, name: Any, kwargs: dict[str, Any]) -> Any:
    """Return the model that ``from_pretrained`` of a class would load, built on the meta device."""
    name, adapters = load_adapters.of_load(name, kwargs) if _has_peft() else (name, None)
    source = Source(str(name), kwargs.pop("revision", None), bool(kwargs.pop("trust_remote_code", False)))
    config = kwargs.pop("config", None)
    quantization = kwargs.pop("quantization_config", None)
    requested = kwargs.pop("dtype", kwargs.pop("torch_dtype", None))
    if major_version() < 5:  # transformers 5 raises for these arguments, and so does this build
        old: dict[str, Any] = {key: kwargs.pop(key) for key in ("load_in_4bit", "load_in_8bit") if key in kwargs}
        quantization = quantization or (_bits(old) if any(old.values()) else None)
        for key in ("use_auth_token", "resume_download"):
            kwargs.pop(key, None)
    attention = kwargs.get("attn_implementation")
    wants_info = kwargs.get("output_loading_info")
    rest = {key: value for key, value in kwargs.items() if key not in _LOADING and not key.startswith("_")}
    if config is None or isinstance(config, (str, Path)):
        config, rest = cls.config_class.from_pretrained(
            str(config or name), return_unused_kwargs=True, **source.arguments(), **rest
        )
    own = getattr(config, "quantization_config", None)
    chosen = own if own is not None else quantization
    dtype = getattr(torch, requested, None) if isinstance(requested, str) else requested
    if not isinstance(dtype, torch.dtype):
        dtype = dtype_of(config, quantized=chosen is not None)
    arguments = {**rest, **({"attn_implementation": _runnable(attention)} if attention else {})}
    architectures = getattr(config, "architectures", None)
    model: Any = instantiate(cls, config, chosen, dtype, pre_quantized=own is not None, arguments=arguments)
    if major_version() >= 5:  # transformers 4 packs a new head as well
        unpack_new(model, str(name), architectures, dtype)
    model.config.name_or_path = str(name)
    model.name_or_path = str(name)
    if adapters is not None:
        load_adapters.attach(model, adapters, kwargs.get("adapter_name") or "default")
    return (model, {}) if wants_info else model


def _has_peft() -> bool:
    return importlib.util.find_spec("peft") is not None


def _bits(requested: Mapping[str, Any]) -> Any:
    from transformers import BitsAndBytesConfig  # takes a second to import

    return BitsAndBytesConfig(**requested)


def _runnable(attention: object) -> object:
    """Return an attention implementation that this machine can build. Flash attention needs its package and a GPU."""
    return "sdpa" if isinstance(attention, str) and "flash" in attention else attention


def call_factory(make: Callable[[], Any], target: str, *, meta: bool) -> Any:
    """Return the result of the user's factory: a model or a Trainer.

    Args:
        make: Imports and calls the factory. The import is included, because scripts load models at module level too.
        target: The target's name, for errors.
        meta: Whether ``from_pretrained`` builds on the meta device.

    Raises:
        TargetError: The factory raises, exits, returns another object, or needs a GPU that is missing.
    """
    process = os.getpid()
    try:
        with _same_folder(), isolated(), quiet_import(), offline_if_unreached(), without_weights() if meta else nullcontext():
            made = make()
    except KbitlintError:
        raise
    except SystemExit as error:
        raise TargetError(target, f"the factory left the program with exit status {error.code}") from error
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # errors outside of Exception are the factory's errors as well
        text = one_line(error)
        if not torch.cuda.is_available() and re.search(r"\bcuda\b|\bgpu\b", text, re.IGNORECASE):
            how = (
                "it still asks for CUDA under --meta" if meta else "run it where there is one, or with --meta, which needs none"
            )
            raise TargetError(target, f"the factory needs CUDA, and there is none here: {how} ({text})") from error
        raise TargetError(target, f"the factory raised {text}") from error
    finally:
        if os.getpid() != process:  # this is a child process that the factory forked; the audit continues in its parent
            os._exit(0)
    if isinstance(made, nn.Module) or is_trainer(made):
        return made
    what = "None" if made is None else f"a {type(made).__name__}"
    raise TargetError(target, f"the factory returned {what}; it must return a model or a Trainer")


@contextmanager
def _same_folder() -> Iterator[None]:
    """Restore the working directory at the end, since paths of further targets are relative to it."""
    try:
        folder = Path.cwd()
    except OSError:  # the working directory was deleted
        yield
        return
    try:
        yield
    finally:
        with suppress(OSError):
            os.chdir(folder)


def is_trainer(value: object) -> bool:
    """Return whether a value is transformers' Trainer or a class built on it: it has a model, arguments and ``train``."""
    return isinstance(getattr(value, "model", None), nn.Module) and hasattr(value, "args") and hasattr(value, "train")
