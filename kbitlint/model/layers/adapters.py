"""The border between the base model and its adapters.

PEFT's layers are recognised by their shape: a child ``base_layer`` or ``original_module`` beside the added modules. This covers
every tuner, including future ones. Modules that a wrapper adds outside the base model (prompt encoders, value heads) count as
adapters too.
"""

from __future__ import annotations

import itertools
import re
from typing import TYPE_CHECKING, Any

from torch import nn

from kbitlint.facts.layers import AdapterFacts
from kbitlint.model.attributes import attribute
from kbitlint.model.layers import adapter_entries

if TYPE_CHECKING:
    from collections.abc import Iterable

#: Names of adapter modules in libraries other than PEFT. Some base models call a projection ``adapter``, so that name alone is
#: no sign.
_FOREIGN = re.compile(r"\.(?:lora_|ia3_|hada_|oft_|vera_|adaption_|adapters\.|prefix_encoder|prompt_encoder|prompt_embeddings)")
#: Names of the child that is the base model's module, in a module that wraps it.
_WRAPPED = ("base_layer", "original_module")
_ANY_WRAPPED = frozenset(_WRAPPED)
#: names that PEFT inserts between a module and its wrapped module
_INSERTED = (*_WRAPPED, "token_adapter")


#: Names of the child in transparent wrappers: torch.compile, FSDP and its activation checkpointing.
#: Facts omit these names, so paths are those of the user's model.
SEEN_THROUGH = ("_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")


def seen_through(module: nn.Module) -> nn.Module:
    """Return the module below the transparent wrappers of torch.compile and FSDP."""
    while True:
        inner = next((module._modules[name] for name in SEEN_THROUGH if name in module._modules), None)  # noqa: SLF001  # see wrapped_child
        if inner is None:
            return module
        module = inner


def input_embedding(model: Any) -> nn.Module | None:
    """Return the input embedding of a transformers model, or None if it exposes none."""
    try:
        found = model.get_input_embeddings()
    except Exception:  # noqa: BLE001  # NotImplementedError if there is none; remote code may raise any error
        return None
    return found if isinstance(found, nn.Module) else None


def wrapped_child(module: nn.Module) -> str | None:
    """Return the name of the child that is the base model's own module, or None if the module wraps none."""
    children = module._modules  # noqa: SLF001  # a dictionary read; attribute access would raise and catch an error
    if not children or _ANY_WRAPPED.isdisjoint(children.keys()):  # as nearly all are; TorchScript's keys are a list
        return None
    return next(name for name in _WRAPPED if name in children)


def below_wrappers(path: str) -> str:
    """Return a path without the names that PEFT inserts between a module and its wrapped module."""
    for inserted in _INSERTED:
        if inserted in path:
            return ".".join(name for name in path.split(".") if name not in _INSERTED)
    return path  # as nearly all are, and a model has thousands


def looks_added(path: str) -> bool:
    """Return whether a parameter path is that of an adapter from a library other than PEFT."""
    return _FOREIGN.search(f".{path}") is not None


def base_of(model: nn.Module) -> nn.Module:
    """Return the model that the user loaded, below PEFT, DDP, torch.compile and value heads.

    It is the outermost transformers model. A module that holds none is its own base.
    """
    from transformers import PreTrainedModel  # takes a second to import

    if hasattr(type(model), "get_base_model"):  # prompt learning stores the base model under another name
        model = own_base(model)
    if isinstance(model, PreTrainedModel):
        return model
    for module in model.modules():  # modules() yields a parent before its children, so the outermost comes first
        if isinstance(module, PreTrainedModel):
            return module
    return model


def own_base(model: Any) -> nn.Module:
    """Return the module inside a PEFT model, or the module itself if it has none."""
    try:
        found = model.get_base_model()
    except Exception:  # noqa: BLE001  # another class may have a method of this name, which may raise any error
        return model  # type: ignore[no-any-return]  # the module itself
    return found if isinstance(found, nn.Module) else model


def owner_of(model: nn.Module, base: nn.Module) -> Any:
    """Return the module that holds the configurations of the adapters, or None."""
    wrappers = itertools.takewhile(lambda module: module is not base, model.modules())
    holders = (*wrappers, base, *model.children())
    return next((module for module in holders if isinstance(attribute(module, "peft_config"), dict)), None)


def adapters_of(model: nn.Module, base: nn.Module) -> tuple[AdapterFacts, ...]:
    """Return the adapters in PEFT's configuration, in the order in which they were added."""
    owner = owner_of(model, base)
    if owner is None:
        return ()
    configs = owner.peft_config
    active = _active(owner)
    return tuple(
        AdapterFacts(
            name=str(name),
            kind=_kind(attribute(config, "peft_type", "adapter")),
            active=not active or name in active,
            inference_mode=bool(attribute(config, "inference_mode")),
            rank=rank if isinstance(rank := attribute(config, "r"), int) else None,
            bias=str(attribute(config, "bias", "none")),
            targets=_targets(config),
            invoked=bool(attribute(config, "alora_invocation_tokens")),
            searched=owner is not base and _searches(type(owner).forward),
            entries=tuple(adapter_entries.entries_of(config)),
        )
        for name, config in configs.items()
    )


def _kind(peft_type: Any) -> str:
    return str(attribute(peft_type, "value", peft_type))


def _targets(config: Any) -> tuple[str, ...]:
    targets = attribute(config, "target_modules")
    return tuple(sorted(map(str, targets))) if isinstance(targets, (list, tuple, set)) else ()


def _active(owner: Any) -> tuple[str, ...]:
    """Return the names of the active adapters. transformers has a method where PEFT has a property."""
    try:
        active = owner.active_adapters
        active = active() if callable(active) else active
    except Exception:  # noqa: BLE001  # transformers raises ValueError if no adapter is loaded or enabled
        return ()
    return (active,) if isinstance(active, str) else tuple(active)


def levels(wrappers: Iterable[nn.Module], base: nn.Module) -> int:
    """Return how many times PEFT wraps a base model, counting adapters that transformers itself attached."""
    around = sum(hasattr(type(one), "get_base_model") and isinstance(attribute(one, "peft_config"), dict) for one in wrappers)
    return around + bool(attribute(base, "_hf_peft_config_loaded"))


def _searches(forward: Any) -> bool:
    """Return whether the forward of one of PEFT's models looks for the tokens that invoke an aLoRA."""
    return "get_alora_offsets_for_forward" in getattr(forward, "__code__", _searches.__code__).co_names
