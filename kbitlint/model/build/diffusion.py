"""Construction and loads of the components of a diffusers pipeline: its transformer or its UNet.

A component's ``config.json`` names a class of diffusers in ``_class_name``. The quantizers of diffusers replace the modules.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from kbitlint.errors import KbitlintError, TargetError, one_line
from kbitlint.extras import load_bitsandbytes, require
from kbitlint.facts.layers import short_name
from kbitlint.files.config_keys import refuse_places
from kbitlint.files.json_object import read_json
from kbitlint.model.build.packed_weights import pack
from kbitlint.model.layers.quantized import method_of
from kbitlint.runtime.deadline import deadline
from kbitlint.upstream.quantization import four_bit_arguments

if TYPE_CHECKING:
    from torch import nn

    from kbitlint.model.build.checkpoint_config import Source

_PURPOSE = "a component of a diffusers pipeline"
#: Seconds of CPU time for the construction and its quantizer. Both use about a tenth of it.
_SECONDS = 60.0


def component_config(source: Source) -> dict[str, Any] | None:
    """Return the config of a diffusers component, or None if the folder holds none.

    Raises:
        TargetError: The config cannot be read, or requests a place outside the checkpoint.
    """
    file = Path(source.name) / "config.json"
    if not file.is_file():
        return None
    values = read_json(file)
    if "_class_name" not in values or "model_type" in values:
        return None
    if not source.trust_remote_code:
        refuse_places(source.asks, values)
    return values


def build_component(source: Source, values: dict[str, Any], quantize: str | None) -> tuple[nn.Module, list[str]]:
    """Build a component on the meta device, with the structure of a quantized load. Return it, and notes for the report.

    Args:
        source: The component's folder.
        values: Its config.
        quantize: How an unquantized component is quantized on load. None quantizes nothing.

    Raises:
        TargetError: The installed diffusers has no such class, or the config does not fit it.
        MissingExtraError: diffusers is not installed.
    """
    cls = component_class(source, values)
    dtype = _dtype(values)
    own = values.get("quantization_config")
    chosen = own if own is not None else quantization_of(quantize, dtype)
    try:
        with source.confined(), deadline(_SECONDS):
            with torch.device("meta"):
                model = cls.from_config(values)
            _cast(model, dtype)
            if chosen is not None:
                _quantize(model, chosen, pre_quantized=own is not None)
    except KbitlintError:
        raise
    except Exception as error:
        raise TargetError(source.name, f"cannot be built from its config: {one_line(error)}") from error
    notes = [] if "dtype" in values else [f"diffusers' config.json names no dtype, so {short_name(dtype)} is assumed"]
    if own is None and chosen is not None:
        notes.append(f"quantized on load as {quantize} (--quantize), compute dtype {short_name(dtype)}")
    return model.eval(), notes


def component_class(source: Source, values: dict[str, Any]) -> Any:
    """Return the class that a component's config names.

    Raises:
        TargetError: The installed diffusers has no such class.
        MissingExtraError: diffusers is not installed.
    """
    load_bitsandbytes(_PURPOSE)  # diffusers imports it, and its warnings with it
    diffusers: Any = require("diffusers", _PURPOSE)
    name = str(values["_class_name"])
    found = getattr(diffusers, name, None)
    if not (isinstance(found, type) and issubclass(found, diffusers.ModelMixin)):
        raise TargetError(
            source.name, f"diffusers {diffusers.__version__} has no model class {name!r}, which config.json names"
        )
    return found


def quantization_of(quantize: str | None, dtype: torch.dtype) -> Any:
    """Return diffusers' quantization config for a value of ``--quantize``, or None if it quantizes nothing."""
    if quantize in (None, "none"):
        return None
    diffusers: Any = require("diffusers", _PURPOSE)
    load_bitsandbytes(f"--quantize {quantize}")
    if quantize == "int8":
        return diffusers.BitsAndBytesConfig(load_in_8bit=True)
    return diffusers.BitsAndBytesConfig(bnb_4bit_compute_dtype=dtype, **four_bit_arguments(str(quantize)))


def _cast(model: Any, dtype: torch.dtype) -> None:
    """Cast floating-point tensors to a dtype, except those that the class keeps in float32."""
    kept = set(getattr(model, "_keep_in_fp32_modules", None) or ())
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        if tensor.is_floating_point() and not kept.intersection(name.split(".")):
            tensor.data = tensor.data.to(dtype)


def _quantize(model: nn.Module, quantization: Any, *, pre_quantized: bool) -> None:
    """Replace the modules of a component by quantized ones, as diffusers does on load."""
    quantizers: Any = require("diffusers.quantizers", _PURPOSE)
    if method_of(quantization) == "bitsandbytes":
        load_bitsandbytes("a bitsandbytes checkpoint")
    try:
        quantizer = quantizers.DiffusersAutoQuantizer.from_config(quantization, pre_quantized=pre_quantized)
        quantizer.preprocess_model(model=model, device_map=None, keep_in_fp32_modules=[])
    except ImportError as error:
        raise KbitlintError(
            f"a {method_of(quantization)} model needs its own package to be built: {one_line(error)}"
        ) from error
    quantizer.postprocess_model(model)
    pack(model)


def load_component(source: Source, values: dict[str, Any], device: str, quantize: str | None) -> Any:
    """Return a component with its weights on a device.

    Raises:
        TargetError: A file cannot be loaded, or diffusers refuses the device, as it does a CPU for bitsandbytes.
        MissingExtraError: diffusers is not installed.
    """
    cls, dtype = component_class(source, values), _dtype(values)
    own = values.get("quantization_config")
    arguments: dict[str, Any] = {"torch_dtype": dtype, "use_safetensors": True}
    if own is None and (chosen := quantization_of(quantize, dtype)) is not None:
        arguments["quantization_config"] = chosen
    try:
        with source.confined():
            return cls.from_pretrained(source.name, **arguments).to(device)
    except KbitlintError:
        raise
    except Exception as error:
        raise TargetError(source.name, f"cannot be loaded: {one_line(error)}") from error


def _dtype(values: dict[str, Any]) -> torch.dtype:
    """Return the dtype of a component's unquantized tensors. Its config names none, and training scripts use bfloat16."""
    own = getattr(torch, str(values.get("torch_dtype") or values.get("dtype")).removeprefix("torch."), None)
    return own if isinstance(own, torch.dtype) else torch.bfloat16
