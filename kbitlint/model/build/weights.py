"""Loads of the real weights of a folder: for ``--fix`` on the device, and for ``load_prepared``."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch

from kbitlint.errors import KbitlintError, TargetError, one_line
from kbitlint.files.checkpoint import base_of_adapter, homes
from kbitlint.model.build.adapter_config import FILE, peft_config
from kbitlint.model.build.checkpoint_config import Source, dtype_of, load_config, model_class, quantization_config
from kbitlint.model.build.diffusion import component_config, load_component
from kbitlint.runtime.confinement import confined
from kbitlint.runtime.content import must_hold_files
from kbitlint.target import Kind, Target


def safetensors_in(folder: Path) -> bool:
    """Return whether the folder holds safetensors weights."""
    return any(folder.glob("*.safetensors"))


def pickles_in(folder: Path) -> bool:
    """Return whether the folder holds pickled weights."""
    return any(folder.glob("*.bin")) or any(folder.glob("*.pt")) or any(folder.glob("*.pth"))


def base_folder(target: Target) -> Path | None:
    """Return the local folder with the base model's weights, or None if the base is not local."""
    if target.kind is not Kind.ADAPTER:
        return target.folder
    base = Path(base_of_adapter(target.folder))
    return base if base.is_dir() else None


def load(
    target: Target, device: str, quantize: str | None, *, trust_remote_code: bool, arguments: dict[str, Any] | None = None
) -> Any:
    """Return the quantized model of a checkpoint folder on a device. An adapter folder adds its adapter.

    Args:
        target: A checkpoint or adapter folder.
        device: The device of the weights.
        quantize: How to quantize an unquantized checkpoint. None or ``none`` leaves it unquantized.
        trust_remote_code: Whether the checkpoint's own code may run.
        arguments: Further arguments of ``from_pretrained``.

    Raises:
        TargetError: The base model is not local, a file cannot be loaded, or the device has too little memory.
    """
    folder = base_folder(target)
    if folder is None:
        raise TargetError(target.text, "its base model is not a local folder")
    for place in dict.fromkeys((folder, target.folder)):
        try:
            must_hold_files(place)
        except OSError as error:
            raise TargetError(error.filename, f"cannot be loaded: {error.strerror}") from error
    source = Source(str(folder), trust_remote_code=trust_remote_code)
    component = component_config(source)
    if component is not None:
        return load_component(source, component, device, quantize)
    config = load_config(source)
    kwargs = _loading(config, device, quantize) | (arguments or {})
    if (folder / FILE).is_file():  # transformers attaches this adapter itself, so its config is checked here
        peft_config(folder / FILE)
    try:
        # the caller chooses the offload folder, and accelerate writes to it
        with nullcontext() if "offload_folder" in kwargs else source.confined():
            cls = model_class(config, source)
            model = cls.from_pretrained(str(folder), **kwargs)
    except KbitlintError:
        raise
    except torch.cuda.OutOfMemoryError as error:
        raise TargetError(target.text, f"does not fit on {device}: {one_line(error)}") from error
    except Exception as error:
        raise TargetError(target.text, f"cannot be loaded: {one_line(error)}") from error
    if target.kind is Kind.ADAPTER:
        model = _with_adapter(model, target, trusted=trust_remote_code)
    return model


def _loading(config: Any, device: str, quantize: str | None) -> dict[str, Any]:
    """Return the arguments of ``from_pretrained`` for a config, a device, and a quantization on load."""
    own = getattr(config, "quantization_config", None)
    wanted = quantize if quantize not in (None, "none") else None
    dtype = dtype_of(config, quantized=own is not None or wanted is not None)
    kwargs: dict[str, Any] = {"use_safetensors": True, "device_map": {"": device}, "dtype": dtype}
    if own is None and wanted is not None:
        kwargs["quantization_config"] = quantization_config(wanted, dtype)
    return kwargs


def _with_adapter(model: Any, target: Target, *, trusted: bool) -> Any:
    """Return the model with the adapter of a folder.

    Raises:
        TargetError: The adapter cannot be loaded, or its weights are pickled only. PEFT alone would load the pickle.
    """
    from peft import PeftModel  # an optional dependency

    if not safetensors_in(target.folder) and pickles_in(target.folder):
        raise TargetError(
            target.text, "the adapter's weights are pickled, and those are never loaded; convert them to safetensors"
        )
    file = target.folder / FILE
    try:
        config = peft_config(file)
        with nullcontext() if trusted else confined(file, *homes(target.folder)):
            return PeftModel.from_pretrained(model, str(target.folder), is_trainable=True, config=config)
    except KbitlintError:
        raise
    except Exception as error:
        raise TargetError(target.text, f"the adapter cannot be loaded: {one_line(error)}") from error
