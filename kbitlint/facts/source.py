"""Facts of one source file: a script, a notebook or a training configuration.

``kbitlint.source`` collects them once for all rules. This module imports no ``ast``.
"""

from __future__ import annotations

import bisect
import enum
import functools
import operator
from dataclasses import field
from typing import TYPE_CHECKING

from kbitlint.facts.source_text import SourceText
from kbitlint.facts.training import Trained
from kbitlint.lazy_dataclass import dataclass
from kbitlint.violation import Location

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from kbitlint.facts.data_flow import DataUse
    from kbitlint.facts.model_state import ModelState
    from kbitlint.facts.object_faults import ObjectFault
    from kbitlint.facts.own_loops import DeadLoss, LoopFault, OwnLoop
    from kbitlint.facts.own_modules import FileUse, Head, RefusedCall, StateUse
    from kbitlint.facts.training import Training
    from kbitlint.facts.values import Argument, Call, Ignore, Span, Value
    from kbitlint.violation import Edit


class Action(enum.Enum):
    """The effect of a step on a model."""

    LOAD = "load"
    PREPARE = "prepare"
    ATTACH = "attach adapters"
    LOAD_ADAPTERS = "load adapters"
    ADD = "add adapters that stay idle"
    ACTIVATE = "activate adapters by name"
    USED_UP = "hand parameters that are used up to an optimizer"
    CHECKPOINT = "enable checkpointing"
    HOOK = "make inputs require grad"
    CAST = "cast"
    MOVE = "move to a device"
    UNFREEZE = "make everything require grad"
    FREEZE = "freeze"
    FREEZE_COPIES = "freeze trained copies of modules, by name"
    UNFREEZE_PACKED = "make packed weights require grad, by name"
    UNFREEZE_COPIES = "make trained copies of modules require grad, by name"
    MERGE = "merge"
    UNLOAD = "take adapters out"
    STATE = "load a state dict"
    RESIZE = "resize embeddings"
    EVAL = "eval mode"
    CONTEXT = "wrap for ranks"
    PREPARED_BY_HAND = "cast norms by hand"
    TRAINER = "hand to a Trainer"
    SAVE = "save"


@dataclass(frozen=True, slots=True)
class Step:
    """One call that changes a model, with the model's state before the call."""

    action: Action
    call: Call
    before: ModelState
    model_id: int = 0
    detail: Value = None
    """The dtype of a cast, the name of a wrapper, the folder of a save, the method of a stored quantization, the load of a
    Trainer's quantized reference model, the base that the folder of loaded adapters names, the load of the model whose state
    dict it is, or the names of modules."""


@dataclass(frozen=True, slots=True)
class ExecutionPath:
    """One path through the file: the branches that are taken if a condition is unknown."""

    steps: tuple[Step, ...] = ()
    trainings: tuple[Training, ...] = ()
    models: Mapping[int, ModelState] = field(default_factory=dict)
    """The state of each model at the end of the path, by number."""
    losses: tuple[DeadLoss, ...] = ()
    """The backward passes that raise, because no graph is behind their losses."""

    def histories(self) -> Iterator[tuple[ModelState, Training | None, tuple[Step, ...]]]:
        """Yield each model's state at its last training, that training, and the steps of the model.

        If the path does not train a model, yield its state at the end of the path and no training (None).
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
    """A name in the file that indicates how the script is launched."""

    what: str
    """The name: an environment variable, a function, a class or an argument."""
    line: int
    within: tuple[int, int] | None = None
    """The first and last line of the function or class around the name; None at the top level."""
    launcher: bool = False
    """Whether it starts several processes: a command beside the file, or a strategy in it."""

    def concerns(self, line: int) -> bool:
        """Return whether the code on a line runs together with the name."""
        return self.within is None or self.within[0] <= line <= self.within[1]


@dataclass(frozen=True, slots=True)
class SourceFacts(SourceText):
    """The facts of one file."""

    calls: tuple[Call, ...] = ()
    """Every call of a known function, listed once, with the arguments on which all paths agree."""
    variants: Mapping[Span, tuple[Call, ...]] = field(default_factory=dict)
    """The forms of each call that paths pass different arguments to."""
    paths: tuple[ExecutionPath, ...] = ()
    distributed: tuple[LaunchSign, ...] = ()
    """Signs that the script is launched with one process for each device."""
    versions: Mapping[str, str] = field(default_factory=dict)
    """The library versions whose behaviour is modelled, by library."""
    dialect: str = "python"
    """``python``, or the program that reads the configuration: ``axolotl``, ``llamafactory``, ``trl``, ..."""
    cells: tuple[tuple[int, int], ...] = ()
    """For a notebook: (first line in the joined text, cell number) of each code cell. Empty for other files."""
    notes: str = ""
    """The text cells of a notebook, and the GPU that its metadata names."""
    ignores: tuple[Ignore, ...] = ()
    """The comments that suppress rules."""
    unfollowed: str = ""
    """Which part of the file was not followed, and why; empty if all of it was."""
    length: int | None = None
    """The number of characters of the file itself; the texts of files that it imports follow it. None without such files."""
    modules: tuple[tuple[int, str], ...] = ()
    """(first line in the joined text, name) of each file of the repository that the file imports and that was followed."""
    module_ignores: Mapping[str, tuple[Ignore, ...]] = field(default_factory=dict)
    """The comments of these files that suppress rules, by name of the file."""
    own_loops: tuple[OwnLoop, ...] = ()
    """The training loops that the file writes itself."""
    loop_faults: tuple[LoopFault, ...] = ()
    """What these loops, and those of evaluations, leave out."""
    object_faults: tuple[ObjectFault, ...] = ()
    """The uses of the libraries' objects that these do not allow."""
    data_uses: tuple[DataUse, ...] = ()
    """The places where data of the file does not fit the code that takes it."""
    heads: tuple[Head, ...] = ()
    """The modules with weights that classes of the file put beside a model."""
    file_uses: tuple[FileUse, ...] = ()
    """The calls in callbacks of the file that need a file of a checkpoint."""
    refused_calls: tuple[RefusedCall, ...] = ()
    """The functions of the file that a newer library cannot call, with the version from which on it cannot."""
    state_uses: tuple[StateUse, ...] = ()
    """The loads of state dicts whose names are not those of the model."""
    base_calls: tuple[Call, ...] = ()
    """The calls of a library's constructor through a class of the file, with the keywords that they write."""
    processes: int | None = None
    """The number of processes that the commands beside the file start; None if they do not tell."""
    neighbours: tuple[SourceFacts, ...] = ()
    """The facts of scripts beside the file that train the adapters which it loads."""
    unused: tuple[Ignore, ...] = ()
    """The comments that suppress no violation, or name no rule; filled after the other rules have run."""

    def at(self, call: Call) -> Location:
        """Return the location of a call."""
        return self._at(call.span.line, call.path or call.callee.rpartition(".")[2], call.span)

    def at_line(self, line: int, what: str = "") -> Location:
        """Return the location of a line; for a notebook, its cell and the line in the cell.

        Args:
            line: The 1-based line in the file, or in the joined code cells of a notebook.
            what: The name at this line, appended to the path of the location.
        """
        return self._at(line, what)

    def at_fault(self, fault: ObjectFault, what: str) -> Location:
        """Return the location of a fault: in the file, or in the one beside it that launches it."""
        folder, slash, _ = self.file.rpartition("/")
        return Location(what, f"{folder}{slash}{fault.file}", fault.line) if fault.file else self.at_line(fault.line, what)

    def _at(self, line: int, what: str, span: Span | None = None) -> Location:
        file, number = self.file, 0
        index = bisect.bisect_right(self.modules, line, key=operator.itemgetter(0))
        if index:
            first, file = self.modules[index - 1]
        else:
            index = bisect.bisect_right(self.cells, line, key=operator.itemgetter(0))
            first, number = self.cells[index - 1] if index else (1, 0)
        place = f"cell {number}" if number else ""
        path, here = " ".join(filter(None, (place, what))), line - first + 1
        if span is None:
            return Location(path, file, here, code=_line(self.text, line))
        start, end = self.line_start(span.start), self.line_start(span.end)
        ends = here + self.text.count("\n", span.start, span.end)
        columns = span.start - start + 1, span.end - end + 1
        return Location(path, file, here, columns[0], ends, columns[1], _line(self.text, line))

    def name_in_comment(self, ignore: Ignore, codes: str) -> tuple[Edit, ...]:
        """Return the edit that lets an ignore comment name rules, beside those that it names."""
        return self.write(*ignore.naming(self.text, codes))

    @property
    def own_text(self) -> str:
        """Return the text of the file without those of the files that it imports."""
        return self.text if self.length is None else self.text[: self.length]

    def writes(self, call: Call, argument: Argument) -> bool:
        """Return whether an argument is a keyword in the text of the call, and does not come from ``**kwargs``."""
        inside = call.span.start <= argument.whole.start and argument.whole.end <= call.span.end
        return inside and self.text.startswith(argument.name, argument.whole.start)

    def names_class(self, call: Call) -> bool:
        """Return whether a call names the class of its library itself, and not a subclass, which may take more arguments."""
        owner, _, name = self.code_of(call.span).partition("(")[0].strip().rpartition(".")
        library, _, last = call.callee.partition(".")
        known = [full for full, local in self.imports if local == (owner.partition(".")[0] or name) or full == f"{library}.*"]
        if known:
            return any(full.partition(".")[0] == library and (owner or full.endswith((f".{last}", ".*"))) for full in known)
        # an import inside a function
        return any(line.lstrip().startswith(f"from {library}") and name in line for line in _lines(self.text))

    def is_imported(self, call: Call) -> bool:
        """Return whether a call stands in a file that the file imports."""
        return self.length is not None and call.span.start > self.length

    def calls_of(self, *callees: str) -> Iterator[Call]:
        """Return the calls of these functions in the order of the text."""
        return (call for call in self.calls if call.callee in callees)

    def forms_of(self, *callees: str) -> Iterator[tuple[Call, ...]]:
        """Yield each call of these functions as the tuple of its forms: one for each set of arguments that a path passes."""
        for call in self.calls_of(*callees):
            yield self.variants.get(call.span, (call,))

    def steps_at(self, *actions: Action) -> Iterator[tuple[Call, tuple[Step, ...]]]:
        """Yield each call that performs one of these actions, with its step on every path that reaches it."""
        found: dict[Span, list[Step]] = {}
        for path in self.paths:
            for step in path.steps:
                if step.action in actions:
                    found.setdefault(step.call.span, []).append(step)
        for steps in found.values():
            yield steps[0].call, tuple(steps)

    def attached(self) -> Iterator[tuple[Call, tuple[Step, ...]]]:
        """Yield each adapter config that the file attaches, once for each call that attaches it, with the steps that do so.

        A function that attaches adapters may receive another config each time that it is called.
        """
        for _, steps in self.steps_at(Action.ATTACH):
            found: dict[Span, list[Step]] = {}
            for step in steps:
                config = step.call.within("peft_config")
                if config is not None:
                    found.setdefault(config.span, []).append(step)
            for group in found.values():
                config = group[0].call.within("peft_config")
                if config is not None:
                    yield config, tuple(group)

    def trained(self, *, quantized: bool = False) -> Iterator[Trained]:
        """Yield each call that trains a model as one ``Trained``.

        Args:
            quantized: Whether only the paths on which the model is quantized count, if there are such paths.
        """
        for trainings in self.trainings():
            paths = tuple(training for training in trainings if training.model.kbit) if quantized else ()
            yield Trained(paths or trainings, () if len(paths or trainings) == len(trainings) else trainings)

    def trainings(self) -> Iterator[tuple[Training, ...]]:
        """Yield each call that trains a model as the tuple of its trainings, one for each path."""
        found: dict[Span, list[Training]] = {}
        for training in (training for path in self.paths for training in path.trainings):
            found.setdefault(training.call.span, []).append(training)
        return map(tuple, found.values())


def _line(text: str, number: int) -> str:
    """Return a 1-based line without its indentation; empty if there is none."""
    lines = _lines(text)
    return lines[number - 1].strip() if 0 < number <= len(lines) else ""


@functools.lru_cache(maxsize=2)
def _lines(text: str) -> list[str]:
    return text.split("\n")
