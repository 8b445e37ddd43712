"""What one pass over a source file collects, for all rules. Frozen, and free of ``ast``."""

from __future__ import annotations

import bisect
import enum
import operator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from kbitlint.facts.source_text import SourceText
from kbitlint.facts.values import UNKNOWN, Call, Span, Value
from kbitlint.violation import Location

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from kbitlint.facts.model_state import ModelState
    from kbitlint.facts.values import Ignore


class Action(enum.Enum):
    """What a step does to a model."""

    LOAD = "load"
    PREPARE = "prepare"
    ATTACH = "attach adapters"
    LOAD_ADAPTERS = "load adapters"
    CHECKPOINT = "enable checkpointing"
    HOOK = "make inputs require grad"
    CAST = "cast"
    UNFREEZE = "make everything require grad"
    FREEZE = "freeze"
    MERGE = "merge"
    RESIZE = "resize embeddings"
    EVAL = "eval mode"
    CONTEXT = "wrap for ranks"
    PREPARED_BY_HAND = "cast norms by hand"
    TRAINER = "hand to a Trainer"
    SAVE = "save"


@dataclass(frozen=True, slots=True)
class Step:
    """One call that changes a model, with the model before it."""

    action: Action
    call: Call
    before: ModelState
    model_id: int = 0
    detail: Value = None
    """What the action needs besides: the dtype of a cast, the wrapper's name, the method of a stored quantization, the
    folder that is saved to."""


class Loop(enum.Enum):
    """Who runs the training loop."""

    TRAINER = "Trainer"
    OWN = "a loop of the file"


@dataclass(frozen=True, slots=True)
class Training:
    """A place where a model is trained, with the model as training finds it."""

    call: Call
    """The Trainer's construction, or the ``backward()``."""
    loop: Loop
    model: ModelState
    model_id: int = 0
    arguments: Call | None = None
    """The TrainingArguments."""
    fp16: Value = UNKNOWN
    bf16: Value = UNKNOWN
    zero_stage: Value = None
    fsdp: bool | None = False
    distributed: bool = False
    """Whether the loop wraps the model for several ranks."""
    find_unused: Value = None
    optimized: bool = True
    """Whether anything is given the model's parameters: without that a backward only asks for gradients."""
    early_optimizer: Call | None = None
    """The call that made the optimizer of the base's parameters, before the adapters were attached; None where anything
    may hold theirs."""
    loop_span: Span | None = None
    """The loop of the file that the backward stands in."""
    name: str = ""
    """What the model is called where it is trained."""
    sleeps: Call | None = None
    """The call in the loop after which the next round finds the model in eval mode."""


@dataclass(frozen=True, slots=True)
class Trained:
    """One place of training, over all paths that reach it."""

    paths: tuple[Training, ...]

    @property
    def call(self) -> Call:
        """The place."""
        return self.paths[0].call

    @property
    def models(self) -> tuple[ModelState, ...]:
        """The model, as each path trains it."""
        return tuple(training.model for training in self.paths)

    @property
    def certain(self) -> bool:
        """Whether nothing that cannot be followed has touched the model on any path."""
        return all(model.certain for model in self.models)

    @property
    def optimized(self) -> bool:
        """Whether anything is given the model's parameters on every path."""
        return all(training.optimized for training in self.paths)

    @property
    def kbit(self) -> bool:
        """Whether the model is quantized on every path."""
        return all(model.kbit for model in self.models)


@dataclass(frozen=True, slots=True)
class ExecutionPath:
    """One way through the file: the branches taken where a condition is unknown."""

    steps: tuple[Step, ...] = ()
    trainings: tuple[Training, ...] = ()
    models: Mapping[int, ModelState] = field(default_factory=dict)
    """Each model at the end of the path."""

    def histories(self) -> Iterator[tuple[ModelState, Training | None, tuple[Step, ...]]]:
        """Each model as the last training finds it, that training, and its steps.

        Where nothing here trains it, it is as the path leaves it.
        """
        trainings = {training.model_id: training for training in self.trainings}
        steps: dict[int, list[Step]] = {}
        for step in self.steps:
            steps.setdefault(step.model_id, []).append(step)
        for number, model in self.models.items():
            training = trainings.get(number)
            yield model if training is None else training.model, training, tuple(steps.get(number, ()))


@dataclass(frozen=True, slots=True)
class LaunchSign:
    """Something that the file names and that tells how it is run."""

    what: str
    line: int
    within: tuple[int, int] | None = None
    """The lines of the function or class that it stands in; None at the top level."""

    def concerns(self, line: int) -> bool:
        """Whether what stands on a line runs with it."""
        return self.within is None or self.within[0] <= line <= self.within[1]


@dataclass(frozen=True, slots=True)
class SourceFacts(SourceText):
    """What one file says about training."""

    calls: tuple[Call, ...] = ()
    """Every call of a known function, each once, with the arguments that all paths agree on."""
    paths: tuple[ExecutionPath, ...] = ()
    distributed: tuple[LaunchSign, ...] = ()
    """Signs that the script is launched with one process for each device."""
    versions: Mapping[str, str] = field(default_factory=dict)
    """The versions whose behaviour is modelled."""
    dialect: str = "python"
    """``python``, or the program that reads the configuration: ``axolotl``, ``llamafactory``, ``trl``, ..."""
    cells: tuple[tuple[int, int], ...] = ()
    """For a notebook: (first line in the joined text, number) of each code cell."""
    ignores: tuple[Ignore, ...] = ()
    """The comments that silence rules."""
    unfollowed: str = ""
    """What of the file was not followed, and why; empty where everything was."""
    unused: tuple[Ignore, ...] = ()
    """Those that silence nothing; filled after the other rules have run."""

    def at(self, call: Call) -> Location:
        """Where a call stands."""
        return self.at_line(call.span.line, call.path or call.callee.rpartition(".")[2])

    def at_line(self, line: int, what: str = "") -> Location:
        """A line of the file; of a notebook the line in its cell."""
        index = bisect.bisect_right(self.cells, line, key=operator.itemgetter(0))
        first, number = self.cells[index - 1] if index else (1, 0)
        place = f"cell {number}" if number else ""
        return Location(" ".join(filter(None, (place, what))), self.file, line - first + 1)

    def calls_of(self, *callees: str) -> Iterator[Call]:
        """The calls of these functions, in the order of the text."""
        return (call for call in self.calls if call.callee in callees)

    def steps_at(self, *actions: Action) -> Iterator[tuple[Call, tuple[Step, ...]]]:
        """Each call that makes such a step, with the step of every path that reaches it."""
        found: dict[Span, list[Step]] = {}
        for path in self.paths:
            for step in path.steps:
                if step.action in actions:
                    found.setdefault(step.call.span, []).append(step)
        for steps in found.values():
            yield steps[0].call, tuple(steps)

    def trained(self) -> Iterator[Trained]:
        """Each place where a model is trained, with every path that reaches it."""
        return (Trained(trainings) for trainings in self.trainings())

    def trainings(self) -> Iterator[tuple[Training, ...]]:
        """Each place where a model is trained, as every path finds it."""
        found: dict[Span, list[Training]] = {}
        for path in self.paths:
            for training in path.trainings:
                found.setdefault(training.call.span, []).append(training)
        return (tuple(trainings) for trainings in found.values())
