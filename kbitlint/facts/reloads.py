"""Adapters that a script saves and loads again: what happened to the base before each, in one path or in two."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kbitlint.facts.source import Action
from kbitlint.lazy_dataclass import dataclass

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kbitlint.facts.source import SourceFacts, Step
    from kbitlint.facts.values import Call, Span, Value


@dataclass(frozen=True, slots=True)
class Reload:
    """A call that loads adapters which the script has trained and saved, on the same checkpoint."""

    load: Call
    saved: tuple[Step, ...]
    """The steps of the model from which the adapters were saved, up to the save, which is the last."""
    loaded: tuple[Step, ...]
    """The steps of the model that gets them, before the load."""
    by: SourceFacts
    """The script that has saved them: the same one, or one beside it."""


def reloads(source: SourceFacts) -> Iterator[Reload]:
    """Yield each load of adapters from a folder that a single save writes, once for each call.

    The save is in the script or, if that saves nothing there, in a script beside it.
    """
    saves = _saves(source)
    loads: dict[Span, list[tuple[Step, tuple[Step, ...]]]] = {}
    for path in source.paths:
        before: dict[int, list[Step]] = {}
        for step in path.steps:
            steps = before.setdefault(step.model_id, [])
            if step.action is Action.LOAD_ADAPTERS:
                loads.setdefault(step.call.span, []).append((step, tuple(steps)))
            steps.append(step)
    for one in source.neighbours if loads else ():
        for folder, written in _saves(one).items():
            saves.setdefault(folder, written)
    for ways in loads.values():
        step, loaded = ways[0]
        folder = step.call.value("model_id", step.call.value("pretrained_model_name_or_path"))
        written = saves.get(folder, {}) if _named(folder) else {}
        same = all(_actions(other) == _actions(loaded) for _, other in ways)
        if len(written) == 1 and same:
            saved, by = next(iter(written.values()))
            if _checkpoint(saved) == _checkpoint(loaded) is not None:
                yield Reload(step.call, saved, loaded, by)


def _saves(source: SourceFacts) -> dict[Value, dict[Span, tuple[tuple[Step, ...], SourceFacts]]]:
    """Return (steps of the model up to the save, script) of each save of a trained model, by folder and place."""
    found: dict[Value, dict[Span, tuple[tuple[Step, ...], SourceFacts]]] = {}
    for path in source.paths:
        before: dict[int, list[Step]] = {}
        trained = {training.model_id for training in path.trainings}
        for step in path.steps:
            steps = before.setdefault(step.model_id, [])
            steps.append(step)
            if step.action is Action.SAVE and step.model_id in trained and _named(step.detail):
                found.setdefault(step.detail, {})[step.call.span] = (tuple(steps), source)
    return found


def _named(folder: Value) -> bool:
    return isinstance(folder, str)


def _actions(steps: tuple[Step, ...]) -> list[Action]:
    return [step.action for step in steps]


def _checkpoint(steps: tuple[Step, ...]) -> str | None:
    """Return the name of the checkpoint that a model was loaded from; None if it is not known or the model is not certain."""
    load = steps[0].before.load if steps and steps[-1].before.certain else None
    name = load.value("pretrained_model_name_or_path") if load is not None else None
    return name if isinstance(name, str) else None
