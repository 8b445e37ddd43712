"""Construction of a quantized model on the meta device, from a config or from code that calls ``from_pretrained``.

No weight is read. The quantizer of the installed transformers replaces the modules. The code that decides which ones is thus
that of a real load.
"""

from __future__ import annotations

import re
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from kbitlint.errors import KbitlintError, TargetError, one_line
from kbitlint.extras import load_bitsandbytes, load_peft
from kbitlint.facts.layers import short_name
from kbitlint.files.checkpoint import inside
from kbitlint.lazy_dataclass import dataclass
from kbitlint.model.build.adapter_config import FILE, peft_config, unknown_keys
from kbitlint.model.build.checkpoint_config import (
    Source,
    dtype_of,
    load_or_assume,
    major_version,
    model_class,
    quantization_config,
)
from kbitlint.model.build.diffusion import build_component, component_config
from kbitlint.model.build.packed_weights import pack, unpackable
from kbitlint.model.layers.heads import keeps_whatever_the_dtype
from kbitlint.model.layers.quantized import method_of
from kbitlint.runtime.confinement import confined
from kbitlint.runtime.deadline import OverdueError, deadline

if TYPE_CHECKING:
    from collections.abc import Iterator


#: Seconds of CPU time for PEFT or a quantizer, and further seconds for each module of the model. Both use about a tenth of it.
_SECONDS, _SECONDS_EACH = 10.0, 0.02


@dataclass(frozen=True, slots=True)
class Built:
    """A model, and notes on how it was built."""

    model: nn.Module
    notes: tuple[str, ...] = ()
    """Sentences for the report, such as an assumed dtype."""
    assumed: str = ""
    """Why the config is that of the table of families; empty if it is the checkpoint's own."""


def _config_for(cls: Any, config: Any) -> Any:
    """Return the part of a composite config that the class accepts.

    A text-only class gets the text config, as in Auto classes.
    """
    wanted = getattr(cls, "config_class", None)
    if isinstance(wanted, type) and not isinstance(config, wanted) and hasattr(config, "get_text_config"):
        text = config.get_text_config()
        return text if isinstance(text, wanted) else config
    return config


def build(source: Source, quantize: str | None = None, said_by: str = "--quantize") -> Built:
    """Build the model that ``from_pretrained(source, ...)`` would load, on the meta device.

    Args:
        source: The checkpoint. Only its config is read, and the headers of its weight files.
        quantize: How an unquantized checkpoint is quantized on load, one of ``upstream.quantization.QUANTIZATIONS``. None or
            ``none`` quantizes nothing. A ``quantization_config`` of the checkpoint takes precedence, which a note reports.
        said_by: The origin of ``quantize``, for the notes.

    Raises:
        TargetError: The config cannot be read, or no model can be built from it.
        KbitlintError: The quantizer needs a package that is not installed.
    """
    component = component_config(source)
    if component is not None:
        model, told = build_component(source, component, quantize)
        return Built(model, tuple(told))
    config, assumed = load_or_assume(source)
    notes = [assumed] if assumed else []
    own = getattr(config, "quantization_config", None)
    wanted = None if quantize in (None, "none") else quantize
    if own is not None and quantize is not None:
        notes.append(f"config.json's own quantization_config ({method_of(own)}) wins over {quantize} ({said_by})")
    dtype = dtype_of(config, quantized=own is not None or wanted is not None)
    if getattr(config, "dtype", None) is None and getattr(config, "torch_dtype", None) is None:
        notes.append(f"config.json names no dtype, so {short_name(dtype)} is assumed")
    chosen = own
    if own is None and wanted is not None:
        chosen = quantization_config(wanted, dtype)
        notes.append(f"quantized on load as {wanted} ({said_by}), compute dtype {short_name(dtype)}")
    try:
        with source.confined():
            cls = model_class(config, source)
            model = instantiate(cls, _config_for(cls, config), chosen, dtype, pre_quantized=own is not None)
    except KbitlintError:
        raise
    except Exception as error:
        raise TargetError(source.name, f"cannot be built from its config: {one_line(error)}") from error
    if own is not None and major_version() >= 5:
        _keep_stored_dtypes(model, Path(source.name))
    return Built(model, tuple(notes), assumed)


def instantiate(
    cls: Any,
    config: Any,
    quantization: Any,
    dtype: torch.dtype,
    *,
    pre_quantized: bool = False,
    arguments: dict[str, Any] | None = None,
) -> nn.Module:
    """Return an instance of a transformers class on the meta device, with the structure of a quantized load.

    Args:
        cls: A subclass of PreTrainedModel.
        config: Its config.
        quantization: A quantization config of transformers (object or dict), or None for an unquantized model.
        dtype: The dtype of unquantized tensors.
        pre_quantized: Whether the checkpoint's tensors are packed already.
        arguments: Further arguments of the class.

    Raises:
        KbitlintError: The quantizer needs a package that is not installed.
    """
    _record(config, dtype)
    with torch.device("meta"):
        model = cls._from_config(config, dtype=dtype, **(arguments or {}))
    if quantization is not None:
        # As in a real load, the quantizer creates biases in the default dtype. It matches the patterns of llm_int8_skip_modules
        # unchecked: hence the deadline.
        with _default_dtype(dtype), deadline(_seconds(model)):
            _quantize(model, quantization, pre_quantized=pre_quantized)
    _keep_in_float32(model, dtype)  # after the quantizer, since its new biases count as well
    if major_version() >= 5:
        _require_grad_as_loaded(model)
    model.eval()
    return model  # type: ignore[no-any-return]  # transformers is not typed


def _seconds(model: nn.Module) -> float:
    """Return the CPU seconds that PEFT or a quantizer may spend on a model."""
    return _SECONDS + _SECONDS_EACH * sum(1 for _ in model.modules())


def _record(config: Any, dtype: torch.dtype) -> None:
    """Set the dtype in the config and its parts, as a load does. ``_from_config`` of transformers 4 does not."""
    parts = (getattr(config, name, None) for name in getattr(config, "sub_configs", ()))
    for one in (config, *parts):
        if one is not None:
            one.dtype = dtype


def _keep_in_float32(model: Any, dtype: torch.dtype) -> None:
    """Cast the tensors that a class keeps in float32, as a load does. Construction from a config does not cast them."""
    names = set(getattr(model, "_keep_in_fp32_modules_strict", None) or ()) if dtype is not torch.float32 else set()
    if dtype is torch.float16 or keeps_whatever_the_dtype(model):
        names |= set(getattr(model, "_keep_in_fp32_modules", None) or ())
    if not names:
        return
    pattern = re.compile("|".join(re.escape(name).replace(r"\*", ".*") for name in sorted(names)))
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        if tensor.is_floating_point() and pattern.search(name):
            tensor.data = tensor.data.float()


def _quantize(model: Any, quantization: Any, *, pre_quantized: bool) -> None:
    from transformers.quantizers import AutoHfQuantizer  # takes a second to import

    if method_of(quantization) == "bitsandbytes":
        load_bitsandbytes("a bitsandbytes checkpoint")
    _untie(model)
    try:
        quantizer = AutoHfQuantizer.from_config(quantization, pre_quantized=pre_quantized)
        quantizer.preprocess_model(
            model=model,
            device_map={"": "cpu"},
            keep_in_fp32_modules=list(getattr(model, "_keep_in_fp32_modules", None) or ()),
        )
    except ImportError as error:
        raise KbitlintError(
            f"a {method_of(quantization)} model needs its own package to be built: {one_line(error)}"
        ) from error
    model.hf_quantizer = quantizer
    quantizer.postprocess_model(model)
    model.tie_weights()
    pack(model)


def _keep_stored_dtypes(model: nn.Module, folder: Path) -> None:
    """Cast float weights of a packed checkpoint to the dtype in its file headers.

    transformers 5 passes every tensor named ``weight`` of a packed bitsandbytes checkpoint through the converter of packed
    ones. That keeps the stored dtype instead of the config's. No weight is read.

    Raises:
        TargetError: The header of a file cannot be read.
    """
    if not folder.is_dir():
        return
    from safetensors import SafetensorError, safe_open  # comes with transformers

    stored: dict[str, str] = {}
    for path in sorted(folder.glob("*.safetensors")):
        if not (path.is_file() and inside(path, folder)):
            continue
        try:
            with safe_open(path, framework="pt") as file:
                stored |= {name: file.get_slice(name).get_dtype() for name in file.keys() if name.endswith(".weight")}  # noqa: SIM118  # not a dict
        except (SafetensorError, OSError) as error:
            raise TargetError(path, f"its header cannot be read: {one_line(error)}") from error
    dtypes = {"F16": torch.float16, "BF16": torch.bfloat16, "F32": torch.float32}
    for name, parameter in model.named_parameters():
        dtype = dtypes.get(stored.get(name, ""))
        if dtype is not None and parameter.is_floating_point() and not getattr(parameter, "bnb_quantized", False):
            parameter.data = parameter.data.to(dtype)


def _require_grad_as_loaded(model: nn.Module) -> None:
    """Make all float parameters trainable. transformers 5 creates a new Parameter for each float tensor that it loads.

    This includes the biases of packed layers.
    """
    for parameter in model.parameters():
        if parameter.is_floating_point() and not getattr(parameter, "bnb_quantized", False):
            parameter.requires_grad = True


@contextmanager
def _default_dtype(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def _untie(model: Any) -> None:
    """Give each tied parameter a tensor of its own. A load quantizes before it ties, so a tied head is replaced first."""
    tied = getattr(model, "all_tied_weights_keys", None) or {}
    for key in tied:
        path, _, name = key.rpartition(".")
        try:
            owner = model.get_submodule(path)
        except AttributeError:
            continue
        parameter = owner._parameters.get(name)  # noqa: SLF001  # torch has no public dictionary
        if parameter is not None:
            owner.register_parameter(name, nn.Parameter(torch.empty_like(parameter), requires_grad=parameter.requires_grad))


def attach_adapter(base: nn.Module, folder: str | Path, *, trusted: bool = False) -> Built:
    """Return the base with the adapter of a folder, attached by PEFT as with ``is_trainable=True``. No weight is read.

    Args:
        base: The model.
        folder: The folder of the adapter.
        trusted: Whether the base runs remote code that the user trusts, so that nothing is confined.

    Raises:
        TargetError: A key of the adapter's config is refused, or PEFT cannot attach it, or not in time.
    """
    peft = load_peft("an adapter folder")
    file = Path(folder) / FILE
    try:
        config = peft_config(file)
        config.inference_mode = False
        # PEFT matches the patterns of the config unchecked, and repeats layers without limit: hence the deadline.
        confinement = nullcontext() if trusted else confined(file, file.parent)
        with deadline(_seconds(base)), confinement, unpackable(), torch.device("meta"):
            model = peft.get_peft_model(base, config)
        pack(model)  # OLoRA replaces weights by ones that are not packed
    except OverdueError as error:
        keys = "target_modules, exclude_modules, rank_pattern, alpha_pattern, layers_pattern and layer_replication"
        raise TargetError(file, f"PEFT does not get done with it: {error}; look at {keys}") from error
    except KbitlintError:
        raise
    except Exception as error:
        why = one_line(error)
        if isinstance(error, NotImplementedError) or re.search(r"\bmeta\b", why):  # PEFT reads a value, which meta tensors lack
            raise TargetError(
                folder, f"this kind of adapter cannot be built without weights; audit the script ({why})"
            ) from error
        raise TargetError(folder, f"PEFT cannot attach this adapter to its base: {why}") from error
    unknown = ", ".join(map(ascii, unknown_keys(file)))
    return Built(model, (f"{FILE}: {unknown} left out, which PEFT {peft.__version__} does not know",) if unknown else ())
