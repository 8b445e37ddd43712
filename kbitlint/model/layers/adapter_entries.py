"""Entries of adapter configurations that name modules, parameters or layers, and those that match nothing.

PEFT raises only if ``target_modules`` as a whole match nothing. The comparisons are those of PEFT 0.21:
``check_target_module_exists``, ``_set_trainable``, ``get_pattern_key`` and ``BaseTuner.inject_adapter``.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from kbitlint.facts.requests import UnmatchedEntry
from kbitlint.model.attributes import attribute
from kbitlint.runtime.patterns import matches

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator

    from kbitlint.facts.layers import AdapterFacts

#: Heads that PEFT itself adds to ``modules_to_save`` for a task type (``SEQ_CLS_HEAD_NAMES`` and ``qa_outputs``).
_OF_TASKS = frozenset(["classifier", "score", "qa_outputs"])
_LISTS = ("modules_to_save", "exclude_modules", "target_parameters")
_PATTERNS = ("rank_pattern", "alpha_pattern")


def entries_of(config: Any) -> Iterator[tuple[str, str]]:
    """Yield (key, entry) of the settings of an adapter that name modules, parameters or layers, without its targets."""
    for key in _LISTS:
        value = attribute(config, key)
        if isinstance(value, (list, tuple, set)):
            added = _OF_TASKS if key == "modules_to_save" and attribute(config, "task_type") else frozenset()
            yield from ((key, str(entry)) for entry in sorted(value, key=str) if entry not in added)
    kind = str(attribute(attribute(config, "peft_type"), "value", ""))
    for key in _PATTERNS if kind == "LORA" else ():  # AdaLoRA stores masks under the same key
        value = attribute(config, key)
        yield from ((key, str(entry)) for entry in (value if isinstance(value, dict) else ()))
    layers = attribute(config, "layers_to_transform")
    layers = [layers] if isinstance(layers, int) else layers
    yield from (("layers_to_transform", str(layer)) for layer in (layers if isinstance(layers, (list, tuple)) else ()))


def unmatched(
    known: Iterable[AdapterFacts], modules: Collection[str], adapted: Collection[str], parameters: Iterable[str]
) -> Iterator[UnmatchedEntry]:
    """Yield the entries of adapter configurations that match nothing.

    Args:
        known: The adapters.
        modules: The paths of all modules, without the names that PEFT inserts.
        adapted: The paths of the modules that have adapters.
        parameters: The paths of the base model's parameters, without the names that PEFT inserts.
    """
    held: list[str] | None = None
    for adapter in known:
        yield from (UnmatchedEntry(adapter.name, "target_modules", name) for name in _dead(adapter.targets, modules, adapted))
        for key, entry in adapter.entries:
            if key in (*_PATTERNS, "target_parameters") and held is None:
                held = [*parameters]
            if key in _PATTERNS:  # PEFT writes patterns for the parameters of experts itself
                found = _by_pattern(entry, adapted) or _by_pattern(entry, held or ())
            elif key == "layers_to_transform":
                found = any(f".{entry}." in path for path in modules)
            elif key == "modules_to_save":  # PEFT compares the plain ends of the paths
                found = any(path.endswith(entry) for path in modules)
            elif key == "target_parameters":  # a parameter that is packed in place has another name for PEFT
                ours = {*adapted, *(f"{path}." for path in adapted)}
                found = _named(entry, (path for path in held or () if path in ours or f"{path.rpartition('.')[0]}." in ours))
            else:
                found = _named(entry, modules)
            if not found:
                yield UnmatchedEntry(adapter.name, key, entry)


def left_out(owner: Any, layers: Iterable[str], adapted: Collection[str]) -> Iterator[UnmatchedEntry]:
    """Yield the linear layers that the targets of an adapter match and that have no adapter.

    PEFT's own function compares them, so exclusions, copies and ranges of layers count as they do when it attaches.

    Args:
        owner: The object that holds ``peft_config``; None if there is none.
        layers: The paths of the linear layers, without the names that PEFT inserts.
        adapted: The paths of the modules that have adapters, without those names.
    """
    configs = attribute(owner, "peft_config")
    if not isinstance(configs, dict) or not adapted or "peft" not in sys.modules:
        return
    from peft.tuners.tuners_utils import check_target_module_exists  # loaded already: it made the adapters

    missing = [path for path in layers if path not in adapted]
    for name, config in configs.items():
        targets = attribute(config, "target_modules")
        for path in missing if isinstance(targets, (set, list, tuple)) else ():
            if (
                _end_of(path) in {_end_of(str(target)) for target in targets}
                and check_target_module_exists(config, path) is True
            ):
                yield UnmatchedEntry(str(name), "left out", path)


def _end_of(path: str) -> str:
    return path.rpartition(".")[2]


def _named(entry: str, paths: Iterable[str]) -> bool:
    return any(path == entry or path.endswith(f".{entry}") for path in paths)


def _by_pattern(entry: str, adapted: Iterable[str]) -> bool:
    """Return whether a pattern of ranks or alphas matches a layer.

    An invalid pattern counts as a match, because PEFT raises. So does one that takes too long.
    """
    return any(matches(rf"(.*\.)?({entry})$", path) is not False for path in adapted)


def _dead(targets: tuple[str, ...], modules: Collection[str], adapted: Iterable[str]) -> Iterator[str]:
    """Yield targets that name no module: neither a path nor the end of one.

    A layer that was wrapped after its adapters were attached has further names in its path, and keeps its adapters.
    """
    names = {*modules, *(path.rpartition(".")[2] for path in modules)} if targets else set()
    dead = [t for t in targets if t not in names and not any(path.endswith(f".{t}") for path in names if "." in t)]
    ends = tuple(f".{target}" for target in targets)
    unnamed = [path for path in adapted if not f".{path}".endswith(ends)] if dead else []
    yield from (target for target in dead if not any(_was_at(target.split("."), path) for path in unnamed))


def _was_at(entry: list[str], path: str) -> bool:
    """Return whether a path is the entry with further names in between."""
    names = path.split(".")
    left = iter(names)
    return len(entry) > 1 and (entry[0], entry[-1]) == (names[0], names[-1]) and all(name in left for name in entry)
