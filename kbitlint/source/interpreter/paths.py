"""The execution paths of a file: one pass for each combination of branches that the file leaves open.

This file combines the interpreter's parts. No part imports it.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

from kbitlint.facts.values import UNKNOWN, Argument, Call, Span
from kbitlint.lazy_dataclass import dataclass
from kbitlint.limits import current
from kbitlint.source.interpreter.assignments import Assignments
from kbitlint.source.interpreter.calls import Calls
from kbitlint.source.interpreter.command_line import CommandLine
from kbitlint.source.interpreter.conditions import Conditions
from kbitlint.source.interpreter.expressions import Expressions
from kbitlint.source.interpreter.functions import Functions
from kbitlint.source.interpreter.imports import Imports
from kbitlint.source.interpreter.library_calls import LibraryCalls
from kbitlint.source.interpreter.loops import Loops
from kbitlint.source.interpreter.model_calls import ModelCalls
from kbitlint.source.interpreter.objects import Effort, TooLong
from kbitlint.source.interpreter.path_state import PathState
from kbitlint.source.interpreter.snapshots import Recording, Snapshots
from kbitlint.source.interpreter.stages import stages_of
from kbitlint.source.interpreter.statements import Statements
from kbitlint.source.interpreter.trainers import Trainers

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path as FilePath

    from kbitlint.facts.source import ExecutionPath
    from kbitlint.source.interpreter.imported_files import ImportedFiles
    from kbitlint.source.interpreter.relevance import Tree
    from kbitlint.source.launches import Launch
    from kbitlint.source.offsets import Text

#: Number of paths that are followed. A real script seldom has more than twelve branches that matter.
MAX_PATHS = 40
#: Number of ways left, and of questions of a path, that are weighed against each other.
_SEEN = 128
#: One path may take ``max_steps // _SHARE + 1`` of a file's steps.
_SHARE = 3


class ScriptInterpreter(
    Statements,
    Imports,
    Assignments,
    Loops,
    Functions,
    CommandLine,
    Calls,
    LibraryCalls,
    ModelCalls,
    Trainers,
    Conditions,
    Expressions,
):
    """All parts combined: the interpreter of one path through a file."""


@dataclass(frozen=True, slots=True)
class Way:
    """A path that is left to follow."""

    answers: dict[str, bool]
    """The answers with which it starts, the one that is its own last."""
    stage: int = -1
    """The stage of the file in which it gives its own answer; -1 for the first path."""


class PathSearch:
    """The ways through a file that are left to follow, and which of them is next.

    If all of them are followed, the order of discovery holds. If they are too many, a way comes first that gives a question an
    answer for the first time, and then one that gives two questions such a pair of answers.
    """

    def __init__(self) -> None:
        self._queue = [Way({})]
        self._single: set[tuple[str, bool]] = set()
        self._pairs: set[frozenset[tuple[str, bool]]] = set()
        self._followed = 0

    @property
    def left(self) -> bool:
        """Return whether ``MAX_PATHS`` leaves a way out."""
        return bool(self._queue)

    def pop(self) -> Way | None:
        """Return the next path; None if no path is left or ``MAX_PATHS`` are followed."""
        if not self._queue or self._followed >= MAX_PATHS:
            return None
        self._followed += 1
        best = min(range(min(len(self._queue), _SEEN)), key=lambda index: (-self._worth(self._queue[index].answers), index))
        return self._queue.pop(best)

    def _worth(self, decisions: dict[str, bool]) -> int:
        """Return how much is new in a way: its last answer, which differs from its parent's, alone or beside another one."""
        if not decisions:
            return 0
        *others, last = decisions.items()
        if last not in self._single:
            return len(decisions) + 1
        return sum(frozenset((last, other)) not in self._pairs for other in others)

    def branch(self, interpreter: ScriptInterpreter) -> None:
        """Queue the opposite answers to the questions of a path that it has answered itself."""
        prefix: dict[str, bool] = {}
        answers = [(key, interpreter.decisions[key]) for key in interpreter.asked]
        self._single.update(answers)
        if len(self._queue) > MAX_PATHS:  # the order matters only if some are left out
            self._pairs.update(frozenset(pair) for pair in itertools.combinations(answers[:_SEEN], 2))
        for key, answer in answers:
            if key not in interpreter.given and len(self._queue) < _SEEN:
                self._queue.append(Way({**prefix, key: not answer}, interpreter.asked[key]))
            prefix[key] = answer


class ExecutionPaths:
    """The execution paths of a file: one for each combination of the unknown conditions that matter, in order of discovery."""

    def __init__(self) -> None:
        self.paths: list[ExecutionPath] = []
        self.calls: list[dict[Span, Call]] = []
        self.unfollowed = ""
        """The message about the part of the file that was not followed; empty if all of it was."""

    def follow(
        self,
        source: Text,
        tree: Tree,
        versions: Mapping[str, str],
        beside: FilePath | None,
        files: ImportedFiles | None = None,
        launch: Launch | None = None,
    ) -> None:
        """Follow the file once for each path.

        Args:
            source: The text of the file.
            tree: Its syntax tree.
            versions: The versions of the libraries whose behaviour is modelled.
            beside: The folder of the script, in which configuration files that it names are searched.
            files: The files of the repository that the script imports; None if they are not followed.
            launch: How the files beside the script launch it; None if they do not.
        """
        relevance, stages = tree.relevance, tuple(stages_of(tree.module))
        search, snapshots = PathSearch(), Snapshots()
        most = left = current().max_steps
        while (way := search.pop()) is not None:
            if left <= 0:
                self.unfollowed = _too_long(most)
                break
            share = min(most // _SHARE + 1, left)
            new = PathState(versions, beside=beside, launch=launch, effort=Effort(share))
            interpreter = ScriptInterpreter(source, new, relevance, way.answers, files)
            whole, recording = True, Recording(snapshots, share, way.stage, snapshots.resume(interpreter))
            try:
                interpreter.follow(stages, recording)
            except TooLong:
                whole, self.unfollowed = False, _too_long(most)
            trail = interpreter.trail
            left -= share - max(trail.effort.left, 0)
            self.paths.append(trail.path(whole=whole))
            self.calls.append(trail.calls)
            search.branch(interpreter)
        if search.left:
            self.unfollowed = self.unfollowed or f"has more than {MAX_PATHS} ways through it, of which the first are followed"


def _too_long(most: int) -> str:
    return (
        f"takes more than {most // _SHARE:,} steps on one way through it, or {most:,} on all, and is not followed to its end"
        " (max-steps of [tool.kbitlint] sets how many)"
    )


def agreed(paths: Iterable[Mapping[Span, Call]]) -> tuple[Call, ...]:
    """Return each call of all paths once; an argument on which the paths disagree is UNKNOWN."""
    found: dict[Span, Call] = {}
    for calls in paths:
        for span, call in calls.items():
            found[span] = call if span not in found else _both(found[span], call)
    return tuple(sorted(found.values(), key=lambda call: (call.span, call.callee)))


def variants(paths: Iterable[Mapping[Span, Call]]) -> dict[Span, tuple[Call, ...]]:
    """Return the forms of each call that paths pass different arguments to, in order of discovery."""
    found: dict[Span, dict[Call, None]] = {}
    for calls in paths:
        for span, call in calls.items():
            found.setdefault(span, {}).setdefault(call)
    return {span: tuple(forms) for span, forms in found.items() if len(forms) > 1}


def _both(one: Call, other: Call) -> Call:
    if one == other:
        return one
    arguments = []
    others = {argument.name: argument for argument in reversed(other.arguments)}  # the first argument of a name counts
    for argument in one.arguments:
        same = others.get(argument.name)
        if same is not None and same.value == argument.value:
            arguments.append(argument)
        else:
            arguments.append(Argument(argument.name, UNKNOWN, argument.span, argument.whole))
    complete = one.complete and other.complete and len(one.arguments) == len(other.arguments)
    return Call(one.callee, one.span, tuple(arguments), complete, one.style, max(one.tail, other.tail))
