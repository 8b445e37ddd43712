"""The walk over a model, which collects the facts that all rules need. The model is only read.

Facts of tensors are in ``kbitlint.model.inspect.tensors``, facts of gradients in ``kbitlint.model.inspect.gradient_feeds``.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import TYPE_CHECKING, Any

from torch import nn
from torch.nn.parameter import UninitializedTensorMixin  # type: ignore[attr-defined]  # not in its stub

from kbitlint.errors import one_line
from kbitlint.facts.model import AdaptedFacts, EmbeddingFacts, InputGradHooks, ModelFacts
from kbitlint.model.attributes import attribute, unread_noted
from kbitlint.model.inspect.gradient_feeds import GradientFlow, gradient_feeds
from kbitlint.model.inspect.overlaps import overlapping
from kbitlint.model.inspect.tensors import Origin, Walk, look_at_tensors
from kbitlint.model.layers import adapters, checkpointing, heads, norms
from kbitlint.model.layers.adapter_entries import left_out, unmatched
from kbitlint.model.layers.adapters import below_wrappers
from kbitlint.model.layers.checkpointing import makes_require_grad
from kbitlint.model.layers.dead_adapters import dead_adapters
from kbitlint.model.layers.quantized import method_of, quantizer_trains, unconverted
from kbitlint.model.layers.skip_names import dead_skips
from kbitlint.model.layers.weight_reads import reader_of

if TYPE_CHECKING:
    from collections.abc import Iterator


def collect(model: nn.Module) -> ModelFacts:
    """Walk over a model once, and return its facts. The model is only read.

    Modules that cannot be read are listed in ``ModelFacts.unread``; they raise no error.
    """
    with unread_noted() as unread:
        facts = _collect(model)
    return dataclasses.replace(facts, unread=(*facts.unread, *unread)) if unread else facts


def _collect(model: nn.Module) -> ModelFacts:
    from transformers import PreTrainedModel  # takes a second to import

    base = adapters.base_of(model)
    walk = Walk()
    known = adapters.adapters_of(model, base)
    walk.trains_biases = any(adapter.bias != "none" for adapter in known)
    for module, path, origin, parent, wrapped in _modules(model, base):
        try:
            _look_at(module, path, parent, walk, origin, wrapped)
        except Exception as error:  # noqa: BLE001  # modules may raise any error; scripted ones do
            walk.unread.append((path, one_line(error)))
        if isinstance(module, PreTrainedModel):
            walk.models.append((path, module))
            walk.tracked.update(_tracked_handles(module))
    hooks = tuple(_hooks(walk))
    embeddings = tuple(_embeddings(walk))
    has_adapters = bool(known) or bool(walk.adapted) or any(parameter.adapter for parameter in walk.parameters)
    plain = {below_wrappers(path) for path in walk.where.values()}
    quantized, unquantized = _linears(walk)
    surroundings = GradientFlow(
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
        feeds=gradient_feeds(surroundings),
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
        dtype=heads.recorded_dtype(base),
        keeps_float32=heads.keeps_float32(walk.models, heads.recorded_dtype(base)),
        hollow=tuple(walk.hollow),
        unconverted=unconverted(base, walk.linears),
        offloaded=tuple(walk.offloaded),
        heads=tuple(heads.heads(base, walk.where)),
        towers=tuple(heads.towers(walk.models)),
        adapted=tuple(walk.adapted),
        unmatched=(
            *unmatched(known, plain, [layer.path for layer in walk.adapted], _own_parameters(walk)),
            *left_out(adapters.owner_of(model, base), (*quantized, *unquantized), _touched(walk)),
        ),
        dead_skips=tuple(dead_skips(base, plain, quantized, unquantized)),
        untied=tuple(heads.untied(base, walk.where)),
        vocabulary=tuple(heads.beyond_embedding(base)),
        overlapping=tuple(overlapping(walk.held)),
        nonfinite=tuple(walk.nonfinite),
        empty=tuple(walk.empty),
        adapter_levels=adapters.levels(_path_to(model, base), base),
        quantizer_trains=quantizer_trains(base),
        device_map=_device_map(base),
        unread=tuple(walk.unread),
    )


def _linears(walk: Walk) -> tuple[list[str], list[str]]:
    """Return the paths of the linear layers that are quantized, and of those that are not, without PEFT's names."""
    return [below_wrappers(layer.path) for layer in walk.quantized], [below_wrappers(path) for path, _ in walk.linears]


def _touched(walk: Walk) -> set[str]:
    """Return the paths of the modules that hold anything that an adapter added, copies to save included."""
    return {below_wrappers(layer.path) for layer in walk.adapted} | {
        below_wrappers(parameter.path.partition(".modules_to_save.")[0]) for parameter in walk.parameters if parameter.adapter
    }


def _own_parameters(walk: Walk) -> Iterator[str]:
    return (below_wrappers(parameter.path) for parameter in walk.parameters if not parameter.adapter)


def _device_map(base: Any) -> tuple[str, ...]:
    devices = attribute(base, "hf_device_map")
    return tuple(sorted({str(device) for device in devices.values()})) if isinstance(devices, dict) else ()


def _tracked_handles(model: Any) -> Iterator[int]:
    """Yield the ids of the hooks that ``disable_input_require_grads()`` would remove: a list in transformers 5, one in 4."""
    single = attribute(model, "_require_grads_hook")
    for handle in attribute(model, "_require_grads_hooks") or ((single,) if single is not None else ()):
        yield handle.id


def _is_compiled(module: nn.Module) -> bool:
    return type(module).__name__ == "OptimizedModule" or module.__dict__.get("_compiled_call_impl") is not None


def _bypassed(walk: Walk) -> str | None:
    """Return why no PEFT layer uses its adapters in the forward pass, or None if one does."""
    if walk.adapted and walk.disabled == len(walk.adapted):
        return "disabled"
    return "merged" if walk.adapted and all(layer.merged for layer in walk.adapted) else None


def _feeds_embeddings(model: nn.Module, base: nn.Module, walk: Walk) -> str | None:
    """Return a trainable module outside the base that its wrapper may pass to the layers as ``inputs_embeds``, or None."""
    trains = next((p.module or p.path for p in walk.parameters if p.outside and p.requires_grad), None)
    for wrapper in _path_to(model, base) if trains is not None else ():
        cls: Any = type(wrapper)
        if not cls.__module__.startswith("peft.") and norms.mentions(cls, "inputs_embeds"):
            return trains
    return None


def _modules(model: nn.Module, base: nn.Module) -> Iterator[tuple[nn.Module, str, Origin | None, nn.Module | None, str | None]]:
    """Yield (module, path, origin, parent, name of the wrapped child) of every module once, in the order of registration.

    Paths are relative to the base.
    """
    outside = Origin("", outside=True)
    stack: list[tuple[nn.Module, str, Origin | None, nn.Module | None]] = [(model, "", outside, None)]
    seen: set[int] = set()
    while stack:
        module, path, origin, parent = stack.pop()
        if module is base:
            path, origin = "", None
        if id(module) in seen:
            continue
        seen.add(id(module))
        wrapped = adapters.wrapped_child(module)
        yield module, path, origin, parent, wrapped
        for name, child in reversed(module._modules.items()):  # noqa: SLF001  # named_modules would build every path twice
            if child is None:
                continue
            inner = origin
            if inner is None and wrapped is not None and name != wrapped:
                inner = Origin(path, outside=False)
            if name in adapters.SEEN_THROUGH:
                stack.append((child, path, inner, parent))
            else:
                stack.append((child, f"{path}.{name}" if path else name, inner, module))


def named_modules(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Yield (path, module) of every module. Paths are those of facts: the user's model without any wrapper."""
    for module, path, *_ in _modules(model, adapters.base_of(model)):
        yield path, module


def _path_to(model: nn.Module, base: nn.Module) -> list[nn.Module]:
    """Return the wrappers from the model down to its base, without the base."""
    wrappers: list[nn.Module] = []
    while model is not base:
        wrappers.append(model)
        inside = [child for child in model.children() if child is base or any(m is base for m in child.modules())]
        if not inside:  # the wrapper holds its base outside the module tree
            break
        model = inside[0]
    return wrappers


def _look_at(  # each is known to the walk
    module: nn.Module, path: str, parent: nn.Module | None, walk: Walk, origin: Origin | None, wrapped: str | None
) -> None:
    """Add the facts of one module to the walk."""
    walk.where[id(module)] = path
    if wrapped == "base_layer" and attribute(module, "adapter_layer_names") is not None:
        reader = reader_of(parent, path.rpartition(".")[2])
        walk.adapted.append(
            AdaptedFacts(path, bool(attribute(module, "merged_adapters")), reader, tuple(dead_adapters(module)))
        )
        walk.disabled += bool(attribute(module, "_disable_adapters"))
    if origin is not None and not origin.outside:
        walk.adapter_modes.add(module.training)
    parameters = module._parameters  # noqa: SLF001  # see _modules
    if parameters and any(map(_is_lazy, map(type, parameters.values()))):
        walk.unread.append((path, "its parameters have no shape before the first forward pass"))
    elif parameters or module._buffers:  # noqa: SLF001  # see _modules
        own = Origin(path, outside=False) if origin is None and wrapped is not None else origin
        look_at_tensors(module, path, parent, walk, own)
    if not walk.compiled:
        walk.compiled = _is_compiled(module)
    if "_hf_hook" in module.__dict__ and heads.is_offloaded(module._hf_hook):  # noqa: SLF001  # accelerate has no public name for it
        walk.offloaded.append(path)
    if module._forward_hooks or module._forward_pre_hooks:  # noqa: SLF001  # torch has no public way to list hooks
        _look_at_hooks(module, path, walk)
    checkpoint = checkpointing.checkpoint_facts(module, path)
    if checkpoint is not None:
        walk.checkpoints.append(checkpoint)


@functools.lru_cache(maxsize=1024)
def _is_lazy(cls: Any) -> bool:
    """Return whether parameters of a class have no shape before the first forward pass."""
    return issubclass(cls, UninitializedTensorMixin)


def _look_at_hooks(module: nn.Module, path: str, walk: Walk) -> None:
    found = {number: hook for number, hook in module._forward_hooks.items() if makes_require_grad(hook)}  # noqa: SLF001  # see _look_at
    if found:
        walk.hooks.append((path, found))
    before = any(map(makes_require_grad, module._forward_pre_hooks.values()))  # noqa: SLF001  # see _look_at
    if before and checkpointing.runs_hooks_outside(module):
        walk.entered.add(path)


def _hooks(walk: Walk) -> Iterator[InputGradHooks]:
    """Yield the gathered hooks with the number of orphans. Only the whole walk can count those."""
    for path, hooks in walk.hooks:
        names = tuple(attribute(hook, "__name__", type(hook).__name__) for hook in hooks.values())
        yield InputGradHooks(path, names, sum(number not in walk.tracked for number in hooks))


def _embeddings(walk: Walk) -> Iterator[EmbeddingFacts]:
    for owner, model in walk.models:
        embedding = adapters.input_embedding(model)
        if id(embedding) in walk.where:
            yield EmbeddingFacts(walk.where[id(embedding)], owner, not isinstance(embedding, (nn.ModuleList, nn.ModuleDict)))


def _claim(base: nn.Module) -> str | None:
    """Return the quantization method that the model or its config names, or None if neither does."""
    named = method_of(attribute(attribute(base, "config", None), "quantization_config"))
    flag = attribute(base, "quantization_method")
    if named or flag:
        return named or str(attribute(flag, "value", flag))
    flagged = attribute(base, "is_loaded_in_4bit") or attribute(base, "is_loaded_in_8bit")
    return "bitsandbytes" if flagged else None


def _configs_with_cache(config: Any) -> Iterator[str]:
    """Yield the names of the configs whose ``use_cache`` is on, sub-configs included."""
    if config is None:
        return
    if attribute(config, "use_cache") is True:
        yield "config"
    for name in sorted(attribute(config, "sub_configs") or ()):
        if attribute(attribute(config, name, None), "use_cache") is True:
            yield f"config.{name}"
