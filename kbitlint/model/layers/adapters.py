"""What belongs to the base model and what to an adapter.

PEFT's layers are recognised by their shape (a child ``base_layer`` or ``original_module`` beside what was added), so
every tuner is covered, also one that PEFT gains tomorrow. Whatever a wrapper adds outside the base model (prompt
encoders, value heads) is an adapter too.
"""

from __future__ import annotations

import itertools
import re
from typing import TYPE_CHECKING, Any

from torch import nn

from kbitlint.facts.layers import AdapterFacts
from kbitlint.model.attributes import attribute

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator

#: adapters that do not come from PEFT, by the names their libraries give them
#: (some base models call a projection of their own ``adapter``, so that name alone says nothing)
_FOREIGN = re.compile(
    r"(^|\.)(lora_|ia3_|hada_|oft_|vera_|adaption_|adapters\.|prefix_encoder|prompt_encoder|prompt_embeddings)"
)
#: a module with one of these children wraps a module of the base model
_WRAPPED = ("base_layer", "original_module")


#: a module with one of these children stands for it: torch.compile, FSDP and its activation checkpointing wrap so, and
#: the path stays the user's
SEEN_THROUGH = ("_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")


def seen_through(module: nn.Module) -> nn.Module:
    """The module below torch.compile's and FSDP's wrappers."""
    while True:
        inner = next((module._modules[name] for name in SEEN_THROUGH if name in module._modules), None)  # noqa: SLF001  # see below
        if inner is None:
            return module
        module = inner


def input_embedding(model: Any) -> nn.Module | None:
    """The input embedding of a transformers model, or None where it exposes none."""
    try:
        found = model.get_input_embeddings()
    except Exception:  # noqa: BLE001  # NotImplementedError where there is none; code of others may raise anything
        return None
    return found if isinstance(found, nn.Module) else None


def wrapped_child(module: nn.Module) -> str | None:
    """The name of the child that is the base model's own module, where the module wraps one."""
    children = module._modules  # noqa: SLF001  # a dictionary read; the property would raise and be caught
    return next((name for name in _WRAPPED if name in children), None) if children else None


def below_wrappers(path: str) -> str:
    """A path without the names that PEFT puts between a module and what it wraps."""
    return ".".join(name for name in path.split(".") if name not in (*_WRAPPED, "token_adapter"))


def looks_added(path: str) -> bool:
    """Whether a parameter path is that of an adapter library other than PEFT."""
    return _FOREIGN.search(path) is not None


def base_of(model: nn.Module) -> nn.Module:
    """The model that the user loaded, below PEFT, DDP, torch.compile and value heads.

    It is the outermost transformers model; a module that holds none is its own base.
    """
    from transformers import PreTrainedModel  # takes a second to import

    if hasattr(type(model), "get_base_model"):  # prompt learning keeps the base model under another name
        model = _own_base(model)
    if isinstance(model, PreTrainedModel):
        return model
    for module in model.modules():  # modules() is breadth before depth in each branch: the outermost comes first
        if isinstance(module, PreTrainedModel):
            return module
    return model


def _own_base(model: Any) -> nn.Module:
    try:
        found = model.get_base_model()
    except Exception:  # noqa: BLE001  # not PEFT's method, but one of the same name that may raise anything
        return model  # type: ignore[no-any-return]  # the module itself
    return found if isinstance(found, nn.Module) else model


def adapters_of(model: nn.Module, base: nn.Module) -> tuple[AdapterFacts, ...]:
    """The adapters that PEFT knows of, in the order in which they were added."""
    wrappers = itertools.takewhile(lambda module: module is not base, model.modules())
    holders = (*wrappers, base, *model.children())
    owner: Any = next((module for module in holders if isinstance(attribute(module, "peft_config"), dict)), None)
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
        )
        for name, config in configs.items()
    )


def _kind(peft_type: Any) -> str:
    return str(attribute(peft_type, "value", peft_type))


def _targets(config: Any) -> tuple[str, ...]:
    targets = attribute(config, "target_modules")
    return tuple(sorted(map(str, targets))) if isinstance(targets, (list, tuple, set)) else ()


def _active(owner: Any) -> tuple[str, ...]:
    """Names of the active adapters; transformers has a method where PEFT has a property."""
    try:
        active = owner.active_adapters
        active = active() if callable(active) else active
    except Exception:  # noqa: BLE001  # transformers raises ValueError where no adapter is loaded or none is enabled
        return ()
    return (active,) if isinstance(active, str) else tuple(active)


def dead_targets(known: Iterable[AdapterFacts], paths: Collection[str], adapted: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Entries of ``target_modules`` that are no module's name; PEFT complains only where all of them are dead.

    PEFT compares an entry with the whole path or with its end (``check_target_module_exists``), when it attaches: a layer
    that was wrapped later has names in its path that the entry has not, and keeps its adapters.

    Args:
        known: The adapters.
        paths: Those of all modules.
        adapted: Those of the modules that have adapters.
    """
    names: set[str] = set()
    for adapter in known:
        if not names and adapter.targets:
            plain = [below_wrappers(path) for path in paths]
            names.update(plain)
            names.update(path.rpartition(".")[2] for path in plain)
        dead = [t for t in adapter.targets if t not in names and not any(path.endswith(f".{t}") for path in names if "." in t)]
        ends = tuple(f".{target}" for target in adapter.targets)
        unnamed = [path for path in adapted if not f".{path}".endswith(ends)] if dead else []
        for target in dead:
            if not any(_was_at(target.split("."), path) for path in unnamed):
                yield adapter.name, target


def _was_at(entry: list[str], path: str) -> bool:
    """Whether a path is that of the entry with names in between."""
    names = path.split(".")
    left = iter(names)
    return len(entry) > 1 and (entry[0], entry[-1]) == (names[0], names[-1]) and all(name in left for name in entry)
