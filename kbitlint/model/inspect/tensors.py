"""Facts of parameters, packed weights and norms. The walk itself is in ``kbitlint.model.inspect.walk``."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from kbitlint.facts.dtypes import LOW_PRECISION
from kbitlint.facts.layers import Packing, QuantizedFacts, UnpackedLayerFacts, short_name
from kbitlint.facts.model import AdaptedFacts, NormFacts, ParameterFacts
from kbitlint.lazy_dataclass import dataclass
from kbitlint.model.attributes import attribute, is_inference
from kbitlint.model.layers import adapters, norms, packed_state, quantized
from kbitlint.model.layers import quantized as layers_quantized
from kbitlint.model.layers.experts import is_bank, packed_kind, packed_shape, path_of
from kbitlint.model.layers.norm_interface import is_transparent
from kbitlint.model.layers.values import is_blank, nonfinite, undefined

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kbitlint.facts.layers import LayerCheckpointing

#: the most elements of a vector whose values are read
_MAX_READ = 2**20


@dataclass(frozen=True, slots=True)
class Origin:
    """The origin of a module that is not part of the base model."""

    tuner: str
    """The path of the PEFT layer that holds the module. It is empty if a wrapper outside the base model holds it."""
    outside: bool
    """Whether a wrapper outside the base model holds the module, such as a value head."""


@dataclass(slots=True)
class Walk:
    """The facts gathered so far. ModelFacts is built from it at the end of the walk."""

    parameters: list[ParameterFacts] = field(default_factory=list)
    norms: list[NormFacts] = field(default_factory=list)
    quantized: list[QuantizedFacts] = field(default_factory=list)
    banks: list[QuantizedFacts] = field(default_factory=list)
    """Experts whose weights are packed in place, without a layer class."""
    hooks: list[tuple[str, dict[int, Any]]] = field(default_factory=list)
    """(module path, hooks by id) of forward hooks that make an output require grad."""
    checkpoints: list[LayerCheckpointing] = field(default_factory=list)
    models: list[tuple[str, Any]] = field(default_factory=list)
    """(path, module) of every transformers model."""
    where: dict[int, str] = field(default_factory=dict)
    """Module paths by the id of the module."""
    first: dict[int, str] = field(default_factory=dict)
    """The first path of each parameter, by the id of the parameter."""
    tied: list[tuple[str, str]] = field(default_factory=list)
    """(later path, first path) of each tied parameter."""
    tracked: set[int] = field(default_factory=set)
    """Ids of the hooks that ``disable_input_require_grads()`` of transformers would remove."""
    adapter_modes: set[bool] = field(default_factory=set)
    """The values of ``training`` among adapter modules."""
    trains_biases: bool = False
    """Whether an adapter trains biases of the base model."""
    adapted: list[AdaptedFacts] = field(default_factory=list)
    hollow: list[UnpackedLayerFacts] = field(default_factory=list)
    """Layers whose class packs a weight while their weight is not packed."""
    offloaded: list[str] = field(default_factory=list)
    """Paths of modules whose weights accelerate loads for each call."""
    linears: list[tuple[str, nn.Module]] = field(default_factory=list)
    """(path, module) of the base model's plain linear layers."""
    entered: set[str] = field(default_factory=set)
    """Paths of checkpointed layers whose own pre-hook makes their input require grad before they checkpoint."""
    held: dict[str, Tensor] = field(default_factory=dict)
    """Each parameter once, by its path."""
    nonfinite: list[str] = field(default_factory=list)
    """Paths of parameters that hold NaN or infinity, and of buffers that hold NaN."""
    empty: list[str] = field(default_factory=list)
    """Paths of trainable parameters without elements. Those that ZeRO-3 or FSDP has taken apart are none."""
    compiled: bool = False
    disabled: int = 0
    """The number of PEFT layers whose adapters are disabled."""
    unread: list[tuple[str, str]] = field(default_factory=list)
    """(path, reason) of each module that could not be read."""


def look_at_tensors(module: nn.Module, path: str, parent: nn.Module | None, walk: Walk, origin: Origin | None) -> None:
    """Add the facts of a module's own parameters and buffers to the walk.

    Args:
        module: The module.
        path: Its path.
        parent: Its parent, or None for the root.
        walk: The facts gathered so far.
        origin: The origin of an added module, or None for a module of the base model.
    """
    kind = packed_kind(module)
    if kind is not None:
        _look_at_bank(module, path, kind, walk)
        return
    packing = _look_at_packing(module, path, walk, base=origin is None)
    norm = packing is None and norms.is_norm(module)
    own: list[tuple[str, Tensor]] = []
    held = is_transparent(module)
    for name, parameter in module._parameters.items():  # noqa: SLF001  # see _modules
        if parameter is None:
            continue
        full = f"{path}.{name}" if path else name
        if id(parameter) in walk.first:
            walk.tied.append((full, walk.first[id(parameter)]))
        else:
            walk.first[id(parameter)] = full
            walk.held[full] = parameter
            added = origin is not None or adapters.looks_added(full) or (walk.trains_biases and name == "bias")
            with torch._C.DisableTorchFunctionSubclass():  # noqa: SLF001  # every read of a Params4bit's size would go through Python
                facts = _parameter_facts(parameter, full, path, packing, origin, norm=norm, adapter=added, held=held)
            walk.nonfinite.extend(nonfinite(module, parameter, facts))
            walk.empty.extend(_empty(parameter, facts))
            if is_bank(module, full, parameter):
                facts = dataclasses.replace(facts, bank=True)
            walk.parameters.append(facts)
            if facts.norm and not norm:
                walk.norms.append(_bare_norm_facts(facts, name))
        if norm and parameter.is_floating_point():
            own.append((name, parameter))
    walk.nonfinite.extend(undefined(module, path))
    if norm:
        buffers = module._buffers.items()  # noqa: SLF001  # see _modules
        own += [(name, buffer) for name, buffer in buffers if buffer is not None and buffer.is_floating_point()]
    if own:
        walk.norms.append(_norm_facts(module, path, parent, own, added=origin is not None))


def _look_at_bank(module: nn.Module, path: str, kind: str, walk: Walk) -> None:
    """Add the facts of experts that are packed in place. Their path is that of the parameter that the module's code reads."""
    parameter, place, shape = module.original, path_of(path), packed_shape(module)
    packing = Packing("bitsandbytes", 4, kind, features=(math.prod(shape[:-1]), shape[-1]))
    walk.banks.append(QuantizedFacts(place, packing))
    facts = _parameter_facts(parameter, place, place.rpartition(".")[0], packing, None, norm=False, adapter=False, held=False)
    walk.parameters.append(dataclasses.replace(facts, shape=shape, packed=True, bank=True))


def _look_at_packing(module: nn.Module, path: str, walk: Walk, *, base: bool) -> Packing | None:
    """Return how the module's weight is packed, and record it. None is an ordinary weight."""
    packing = quantized.packing_of(module)
    if packing is not None:
        lost, conflict, repacked, repacks, blank = "", "", False, False, False
        weight = module._parameters.get("weight")  # noqa: SLF001  # see _modules
        if quantized.has_data(attribute(module, "weight") if weight is None else weight):
            lost = quantized.lost_state(module, packing)
            conflict = packed_state.conflict(module, packing)
            repacked = packed_state.is_repacked(module, packing)
            repacks = packed_state.repacks_in_eval_mode(module, packing)
            blank = is_blank(module, packing)
        conflict = conflict or packed_state.shared_scales(module, packing, path, walk.first)
        walk.quantized.append(QuantizedFacts(path, packing, lost, conflict, repacked, repacks, blank))
        return packing
    if quantized.packed_class(type(module)):
        walk.hollow.extend(layers_quantized.hollow(module, path))
    elif base and isinstance(module, nn.Linear):
        walk.linears.append((path, module))
    return None


def _parameter_facts(  # noqa: PLR0913  # each is one fact
    parameter: Tensor,
    path: str,
    module: str,
    packing: Packing | None,
    origin: Origin | None,
    *,
    norm: bool,
    adapter: bool,
    held: bool,
) -> ParameterFacts:
    name = path.rpartition(".")[2]
    below = path[len(origin.tuner) + 1 :].split(".") if origin is not None and origin.tuner else []
    floating, shape, numel = parameter.is_floating_point(), tuple(parameter.shape), parameter.numel()
    return ParameterFacts(
        path=path,
        module=module,
        dtype=short_name(parameter.dtype),
        shape=shape,
        numel=numel,
        nbytes=numel * parameter.element_size(),
        requires_grad=parameter.requires_grad,
        device=parameter.device.type,
        adapter=adapter,
        adapter_name=below[1] if len(below) > 1 else _prompt_of(path),  # PEFT stores adapters as lora_A.<name>.weight
        outside=origin is not None and origin.outside,
        packed=packing is not None and (name == "weight" or not floating),
        norm=norm or (packing is None and floating and norms.is_bare_norm(name, len(shape))),
        floating=floating,
        held=held,
        inference=is_inference(parameter),
        least=_least(parameter) if adapter and parameter.requires_grad else 0.0,
    )


def _empty(parameter: Tensor, facts: ParameterFacts) -> Iterator[str]:
    """Yield the path of a trainable parameter without elements. ZeRO-3 and FSDP leave such, and hold the elements elsewhere."""
    if facts.requires_grad and not facts.numel and not (hasattr(parameter, "ds_id") or hasattr(parameter, "_fsdp_flattened")):
        yield facts.path


def _prompt_of(path: str) -> str:
    """Return the adapter that a parameter of a learned prompt belongs to: PEFT stores them as prompt_encoder.<name>."""
    first, _, rest = path.partition(".")
    return rest.partition(".")[0] if first == "prompt_encoder" and "." in rest else ""


def _least(parameter: Tensor) -> float:
    """Return the smallest magnitude in a half-precision vector, and 0.0 for every other tensor or one without values."""
    if parameter.dtype not in (torch.bfloat16, torch.float16) or parameter.dim() != 1 or parameter.is_meta:
        return 0.0
    return float(parameter.detach().abs().min()) if 0 < parameter.numel() <= _MAX_READ else 0.0


def _bare_norm_facts(parameter: ParameterFacts, name: str) -> NormFacts:
    return NormFacts(
        path=parameter.path,
        class_name="Parameter",
        dtypes=((name, parameter.dtype),),
        nbytes=parameter.nbytes,
        bare=True,
        output_dtype=None,
        adapter=parameter.adapter,
    )


def _norm_facts(
    module: nn.Module, path: str, parent: nn.Module | None, own: list[tuple[str, Tensor]], *, added: bool
) -> NormFacts:
    cls: Any = type(module)
    caller: Any = type(parent)
    read = "self" in norms.dtype_readers(cls)
    read = read or (parent is not None and path.rpartition(".")[2] in norms.dtype_readers(caller))
    dtypes = tuple((name, short_name(tensor.dtype)) for name, tensor in own)
    return NormFacts(
        path=path,
        class_name=type(module).__name__,
        dtypes=dtypes,
        nbytes=sum(_nbytes(tensor) for _, tensor in own if short_name(tensor.dtype) in LOW_PRECISION),
        bare=False,
        output_dtype=dict(dtypes).get("weight") if read else None,
        adapter=added,
        upcasts=norms.upcasts(cls),
        transparent=bool(module._forward_pre_hooks) and is_transparent(module),  # noqa: SLF001  # see _look_at
    )


def _nbytes(tensor: Tensor) -> int:
    return int(tensor.numel() * tensor.element_size())
