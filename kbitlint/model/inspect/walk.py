"""Walks a model once and collects the facts that all rules need. The model is only read."""

from __future__ import annotations

import dataclasses
import functools
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from kbitlint.errors import one_line
from kbitlint.facts.layers import Packing, short_name
from kbitlint.model import adapters, banks, checkpointing, norms, parts, quantized
from kbitlint.model.attributes import attribute, unread_noted
from kbitlint.model.facts import (
    LOW_PRECISION,
    AdaptedFacts,
    EmbeddingFacts,
    HollowFacts,
    InputGradHooks,
    ModelFacts,
    NormFacts,
    ParameterFacts,
    QuantizedFacts,
)
from kbitlint.model.feeds import Surroundings, feeds
from kbitlint.model.source import method_of
from kbitlint.model.transparency import is_transparent

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kbitlint.facts.layers import CheckpointFacts


@dataclass(frozen=True, slots=True)
class _Origin:
    """Who added a module to the base model."""

    tuner: str
    """The path of the PEFT layer that holds it; empty where a wrapper outside the base does."""
    outside: bool


@dataclass(slots=True)
class _Walk:
    """What the walk gathers; ModelFacts is made of it once it is complete."""

    parameters: list[ParameterFacts] = field(default_factory=list)
    norms: list[NormFacts] = field(default_factory=list)
    quantized: list[QuantizedFacts] = field(default_factory=list)
    banks: list[QuantizedFacts] = field(default_factory=list)
    hooks: list[tuple[str, dict[int, Any]]] = field(default_factory=list)
    checkpoints: list[CheckpointFacts] = field(default_factory=list)
    models: list[tuple[str, Any]] = field(default_factory=list)
    where: dict[int, str] = field(default_factory=dict)
    first: dict[int, str] = field(default_factory=dict)
    tied: list[tuple[str, str]] = field(default_factory=list)
    tracked: set[int] = field(default_factory=set)
    adapter_modes: set[bool] = field(default_factory=set)
    trains_biases: bool = False
    adapted: list[AdaptedFacts] = field(default_factory=list)
    hollow: list[HollowFacts] = field(default_factory=list)
    offloaded: list[str] = field(default_factory=list)
    linears: list[tuple[str, nn.Module]] = field(default_factory=list)
    entered: set[str] = field(default_factory=set)
    compiled: bool = False
    disabled: int = 0
    unread: list[tuple[str, str]] = field(default_factory=list)


def collect(model: nn.Module) -> ModelFacts:
    """Walk the model once. The model is only read."""
    with unread_noted() as unread:
        facts = _collect(model)
    return dataclasses.replace(facts, unread=(*facts.unread, *unread)) if unread else facts


def _collect(model: nn.Module) -> ModelFacts:
    from transformers import PreTrainedModel

    base = adapters.base_of(model)
    walk = _Walk()
    known = adapters.adapters_of(model, base)
    walk.trains_biases = any(adapter.bias != "none" for adapter in known)
    for module, path, origin, parent in _modules(model, base):
        try:
            _look_at(module, path, parent, walk, origin)
        except Exception as error:  # noqa: BLE001  # scripted modules, lazy parameters: modules may raise anything
            walk.unread.append((path, one_line(error)))
        if isinstance(module, PreTrainedModel):
            walk.models.append((path, module))
            walk.tracked.update(_tracked_handles(module))
    hooks = tuple(_hooks(walk))
    embeddings = tuple(_embeddings(walk))
    has_adapters = bool(known) or bool(walk.adapted) or any(parameter.adapter for parameter in walk.parameters)
    surroundings = Surroundings(
        layers=frozenset(checkpoint.path for checkpoint in walk.checkpoints if checkpoint.enabled),
        models=tuple(path for path, _ in walk.models),
        embeddings=embeddings,
        hooks=hooks,
        parameters=walk.parameters,
        has_adapters=has_adapters,
        outside=_feeds_embeddings(model, base, walk),
        entered=frozenset(walk.entered),
    )
    return ModelFacts(
        class_name=type(base).__name__,
        model_type=str(attribute(attribute(base, "config"), "model_type", "")),
        parameters=tuple(walk.parameters),
        norms=tuple(walk.norms),
        quantized=tuple(walk.quantized),
        packed_banks=tuple(walk.banks),
        embeddings=embeddings,
        input_grad_hooks=hooks,
        has_adapters=has_adapters,
        feeds=feeds(surroundings),
        checkpoints=tuple(walk.checkpoints),
        models=surroundings.models,
        adapters=known,
        adapter_layers=len(walk.adapted),
        claims_quantization=_claim(base),
        supports_checkpointing=checkpointing.supports_checkpointing(base),
        use_cache=tuple(_configs_with_cache(attribute(base, "config"))),
        training=base.training,
        adapter_training=any(walk.adapter_modes) if walk.adapter_modes else None,
        bypassed=_bypassed(walk),
        compiled=walk.compiled,
        tied=tuple(walk.tied),
        dtype=parts.recorded_dtype(base),
        keeps_float32=parts.keeps_float32(walk.models, parts.recorded_dtype(base)),
        hollow=tuple(walk.hollow),
        unconverted=parts.unconverted(base, walk.linears),
        offloaded=tuple(walk.offloaded),
        heads=tuple(parts.heads(base, walk.where)),
        towers=tuple(parts.towers(walk.models)),
        adapted=tuple(walk.adapted),
        dead_targets=tuple(parts.dead_targets(known, walk.where.values(), [layer.path for layer in walk.adapted])),
        quantizer_trains=parts.quantizer_trains(base),
        device_map=_device_map(base),
        unread=tuple(walk.unread),
    )


def _device_map(base: Any) -> tuple[str, ...]:
    devices = attribute(base, "hf_device_map")
    return tuple(sorted({str(device) for device in devices.values()})) if isinstance(devices, dict) else ()


def _tracked_handles(model: Any) -> Iterator[int]:
    """Ids of the hooks that ``disable_input_require_grads()`` would remove: a list in transformers 5, one in 4."""
    single = attribute(model, "_require_grads_hook")
    for handle in attribute(model, "_require_grads_hooks") or ((single,) if single is not None else ()):
        yield handle.id


def _is_compiled(module: nn.Module) -> bool:
    return type(module).__name__ == "OptimizedModule" or module.__dict__.get("_compiled_call_impl") is not None


def _bypassed(walk: _Walk) -> str | None:
    """Why no PEFT layer uses its adapters in the forward pass, where none does."""
    if walk.adapted and walk.disabled == len(walk.adapted):
        return "disabled"
    return "merged" if walk.adapted and all(layer.merged for layer in walk.adapted) else None


def _feeds_embeddings(model: nn.Module, base: nn.Module, walk: _Walk) -> str | None:
    """A trainable module outside the base that its wrapper may feed into the layers as ``inputs_embeds``."""
    trains = next((p.module or p.path for p in walk.parameters if p.outside and p.requires_grad), None)
    for wrapper in _path_to(model, base) if trains is not None else ():
        cls: Any = type(wrapper)
        if not cls.__module__.startswith("peft.") and norms.mentions(cls, "inputs_embeds"):
            return trains
    return None


def _modules(model: nn.Module, base: nn.Module) -> Iterator[tuple[nn.Module, str, _Origin | None, nn.Module | None]]:
    """Every (module, path, who added it, parent) once, in the order of registration, paths relative to base."""
    outside = _Origin("", outside=True)
    stack: list[tuple[nn.Module, str, _Origin | None, nn.Module | None]] = [(model, "", outside, None)]
    seen: set[int] = set()
    while stack:
        module, path, origin, parent = stack.pop()
        if module is base:
            path, origin = "", None
        if id(module) in seen:
            continue
        seen.add(id(module))
        yield module, path, origin, parent
        wrapped = adapters.wrapped_child(module)
        for name, child in reversed(module._modules.items()):  # noqa: SLF001  # named_modules would build every path twice
            if child is None:
                continue
            inner = origin
            if inner is None and wrapped is not None and name != wrapped:
                inner = _Origin(path, outside=False)
            if name in adapters.SEEN_THROUGH:
                stack.append((child, path, inner, parent))
            else:
                stack.append((child, f"{path}.{name}" if path else name, inner, module))


def places(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """(path, module) of every module, with the paths that facts use: those of the user's model, below all wrappers."""
    for module, path, _, _ in _modules(model, adapters.base_of(model)):
        yield path, module


def _path_to(model: nn.Module, base: nn.Module) -> list[nn.Module]:
    """The wrappers from the model down to its base, without the base."""
    wrappers: list[nn.Module] = []
    while model is not base:
        wrappers.append(model)
        inside = [child for child in model.children() if child is base or any(m is base for m in child.modules())]
        if not inside:  # a wrapper that holds its base outside the module tree
            break
        model = inside[0]
    return wrappers


def _look_at(module: nn.Module, path: str, parent: nn.Module | None, walk: _Walk, origin: _Origin | None) -> None:
    walk.where[id(module)] = path
    wrapped = adapters.wrapped_child(module)
    if wrapped == "base_layer" and attribute(module, "adapter_layer_names") is not None:
        walk.adapted.append(AdaptedFacts(path, bool(attribute(module, "merged_adapters"))))
        walk.disabled += bool(attribute(module, "_disable_adapters"))
    if origin is not None and not origin.outside:
        walk.adapter_modes.add(module.training)
    if any(map(is_lazy, module._parameters.values())):  # noqa: SLF001  # see _modules
        walk.unread.append((path, "its parameters have no shape before the first forward pass"))
    elif module._parameters or module._buffers:  # noqa: SLF001  # see _modules
        own = _Origin(path, outside=False) if origin is None and wrapped is not None else origin
        _look_at_tensors(module, path, parent, walk, own)
    if not walk.compiled:
        walk.compiled = _is_compiled(module)
    if "_hf_hook" in module.__dict__ and parts.is_offloaded(module._hf_hook):  # noqa: SLF001  # accelerate has no public name for it
        walk.offloaded.append(path)
    if module._forward_hooks or module._forward_pre_hooks:  # noqa: SLF001  # torch has no public way to list hooks
        _look_at_hooks(module, path, walk)
    checkpoint = checkpointing.checkpoint_facts(module, path)
    if checkpoint is not None:
        walk.checkpoints.append(checkpoint)


def _look_at_hooks(module: nn.Module, path: str, walk: _Walk) -> None:
    found = {number: hook for number, hook in module._forward_hooks.items() if makes_require_grad(hook)}  # noqa: SLF001  # see _look_at
    if found:
        walk.hooks.append((path, found))
    before = any(map(makes_require_grad, module._forward_pre_hooks.values()))  # noqa: SLF001  # see _look_at
    if before and checkpointing.runs_hooks_outside(module):
        walk.entered.add(path)


def _look_at_tensors(module: nn.Module, path: str, parent: nn.Module | None, walk: _Walk, origin: _Origin | None) -> None:
    """The module's own parameters and buffers: what is packed, what is a norm's, what is an adapter's."""
    kind = banks.packed_kind(module)
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
            added = origin is not None or adapters.looks_added(full) or (walk.trains_biases and name == "bias")
            with torch._C.DisableTorchFunctionSubclass():  # noqa: SLF001  # a Params4bit goes through Python for every size it is asked
                facts = _parameter_facts(parameter, full, path, packing, origin, norm=norm, adapter=added, held=held)
            if parts.is_bank(module, full, parameter):
                facts = dataclasses.replace(facts, bank=True)
            walk.parameters.append(facts)
            if facts.norm and not norm:
                walk.norms.append(_bare_norm_facts(facts, name))
        if norm and parameter.is_floating_point():
            own.append((name, parameter))
    if norm:
        buffers = module._buffers.items()  # noqa: SLF001  # see _modules
        own += [(name, buffer) for name, buffer in buffers if buffer is not None and buffer.is_floating_point()]
    if own:
        walk.norms.append(_norm_facts(module, path, parent, own, added=origin is not None))


def _look_at_bank(module: nn.Module, path: str, kind: str, walk: _Walk) -> None:
    """Experts that are packed in place: the facts name the parameter that the module's code still reads."""
    parameter, place, shape = module.original, banks.path_of(path), banks.packed_shape(module)
    packing = Packing("bitsandbytes", 4, kind, features=(math.prod(shape[:-1]), shape[-1]))
    walk.banks.append(QuantizedFacts(place, packing))
    facts = _parameter_facts(parameter, place, place.rpartition(".")[0], packing, None, norm=False, adapter=False, held=False)
    walk.parameters.append(dataclasses.replace(facts, shape=shape, packed=True, bank=True))


def _look_at_packing(module: nn.Module, path: str, walk: _Walk, *, base: bool) -> Packing | None:
    packing = quantized.packing_of(module)
    if packing is not None:
        walk.quantized.append(QuantizedFacts(path, packing, quantized.lost_state(module, packing)))
        return packing
    if quantized.packed_class(type(module)):
        walk.hollow.extend(parts.hollow(module, path))
    elif base and isinstance(module, nn.Linear):
        walk.linears.append((path, module))
    return None


def _parameter_facts(  # noqa: PLR0913  # each is one fact
    parameter: Tensor,
    path: str,
    module: str,
    packing: Packing | None,
    origin: _Origin | None,
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
        adapter_name=below[1] if len(below) > 1 else "",  # PEFT keeps adapters as lora_A.<name>.weight
        outside=origin is not None and origin.outside,
        packed=packing is not None and (name == "weight" or not floating),
        norm=norm or (packing is None and floating and norms.is_bare_norm(name, len(shape))),
        floating=floating,
        held=held,
        inference=parameter.is_inference(),
    )


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
        transparent=bool(module._forward_pre_hooks) and is_transparent(module),  # noqa: SLF001  # see _look_at
    )


def _nbytes(tensor: Tensor) -> int:
    return int(tensor.numel() * tensor.element_size())


def makes_require_grad(hook: Any) -> bool:
    """Whether a forward hook sets ``requires_grad`` on what it is given, told by its code and not by its name."""
    while isinstance(hook, functools.partial):
        hook = hook.func
    code = attribute(attribute(hook, "__func__", hook), "__code__")
    return code is not None and bool({"requires_grad_", "requires_grad"} & set(code.co_names))


def _hooks(walk: _Walk) -> Iterator[InputGradHooks]:
    """The gathered hooks with the number of orphans, which only the whole walk knows."""
    for path, hooks in walk.hooks:
        names = tuple(attribute(hook, "__name__", type(hook).__name__) for hook in hooks.values())
        yield InputGradHooks(path, names, sum(number not in walk.tracked for number in hooks))


def _embeddings(walk: _Walk) -> Iterator[EmbeddingFacts]:
    for owner, model in walk.models:
        embedding = adapters.input_embedding(model)
        if id(embedding) in walk.where:
            yield EmbeddingFacts(walk.where[id(embedding)], owner, not isinstance(embedding, (nn.ModuleList, nn.ModuleDict)))


def _claim(base: nn.Module) -> str | None:
    """The quantization method that the model or its config names."""
    named = method_of(attribute(attribute(base, "config", None), "quantization_config"))
    flag = attribute(base, "quantization_method")
    if named or flag:
        return named or str(attribute(flag, "value", flag))
    flagged = attribute(base, "is_loaded_in_4bit") or attribute(base, "is_loaded_in_8bit")
    return "bitsandbytes" if flagged else None


def _configs_with_cache(config: Any) -> Iterator[str]:
    """Names of the configs, the sub-configs included, whose ``use_cache`` is on."""
    if config is None:
        return
    if attribute(config, "use_cache") is True:
        yield "config"
    for name in sorted(attribute(config, "sub_configs") or ()):
        if attribute(attribute(config, name, None), "use_cache") is True:
            yield f"config.{name}"
