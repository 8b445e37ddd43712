"""The second round of a loop, whose first one a path has followed."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from kbitlint.facts.source import Action
from kbitlint.facts.training import Loop

if TYPE_CHECKING:
    from kbitlint.facts.values import Call
    from kbitlint.source.interpreter.path_state import PathState


def next_round(trail: PathState, steps: int, trainings: int) -> None:
    """Apply the training mode at the end of a loop's first round to its second round.

    A training ``sleeps`` if its model is in train mode when it runs, but in eval mode at the end of the round. It does
    not if the loop sets the mode before the training.

    Args:
        trail: The state of the path.
        steps: The number of steps before the loop.
        trainings: The number of trainings before the loop.
    """
    evals: dict[int, list[tuple[int, Call]]] = {}
    for at in range(steps, len(trail.steps)) if trainings < len(trail.trainings) else ():
        if trail.steps[at].action is Action.EVAL:
            evals.setdefault(trail.steps[at].model_id, []).append((at, trail.steps[at].call))
    for number in range(trainings, len(trail.trainings)):
        training = trail.trainings[number]
        modes = evals.get(training.model_id)
        awake = training.loop is Loop.OWN and training.model.training_mode is True
        asleep = trail.nets[training.model_id].state.training_mode is False
        if awake and asleep and modes and modes[0][0] >= trail.reached[number]:
            trail.trainings[number] = dataclasses.replace(training, sleeps=modes[-1][1])
