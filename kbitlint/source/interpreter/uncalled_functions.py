"""Functions that nothing in the file calls: the order in which others call them is not known."""

from __future__ import annotations

import dataclasses
from collections import Counter
from typing import TYPE_CHECKING

from kbitlint.lazy_dataclass import dataclass

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from kbitlint.source.interpreter.objects import Function
    from kbitlint.source.interpreter.path_state import PathState


@dataclass(frozen=True, slots=True)
class UncalledFunction:
    """A function that no code in the file calls, with the part of the path that following it added."""

    steps: range
    trainings: range
    changed: frozenset[int]
    """The numbers of the models whose state the function changes, apart from their training mode."""


def called_in_order(function: Function) -> bool:
    """Return whether a framework calls the methods of the class in about the order of the text, as Lightning does."""
    return function.of is not None and function.of.base.endswith("LightningModule")


def blur_order(path: PathState, functions: Sequence[UncalledFunction]) -> None:
    """Of functions that are called elsewhere: what one does to a model may come before or after another trains it.

    So nothing that it finds of the model is certain.
    """
    changing = Counter(number for function in functions for number in function.changed)
    for function in functions:
        others = _Others(changing, function.changed)
        for number in function.trainings:
            training = path.trainings[number]
            if training.model_id in others:
                model = dataclasses.replace(training.model, certain=False)
                path.trainings[number] = dataclasses.replace(training, model=model)
        for number in function.steps:
            step = path.steps[number]
            if step.model_id in others:
                path.steps[number] = dataclasses.replace(step, before=dataclasses.replace(step.before, certain=False))


@dataclass(frozen=True, slots=True)
class _Others:
    """The models that at least one other function changes."""

    changing: Mapping[int, int]
    """The number of functions that change each model, by the model's number."""
    own: frozenset[int]

    def __contains__(self, number: int) -> bool:
        return self.changing.get(number, 0) > (number in self.own)
