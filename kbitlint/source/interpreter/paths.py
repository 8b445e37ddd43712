"""The execution paths of a file: one pass for each combination of branches that the file leaves open.

This file combines the interpreter's parts. No part imports it.
"""

from __future__ import annotations

import dataclasses
import itertools
from typing import TYPE_CHECKING

from kbitlint.facts.values import UNKNOWN, Argument, Call, Span
from kbitlint.lazy_dataclass import dataclass
from kbitlint.limits import current
from kbitlint.source.interpreter.assignments import Assignments
from kbitlint.source.interpreter.builtin_calls import BuiltinCalls
from kbitlint.source.interpreter.calls import Calls
from kbitlint.source.interpreter.cast_parts import CastParts
from kbitlint.source.interpreter.command_line import CommandLine
from kbitlint.source.interpreter.conditions import Conditions
from kbitlint.source.interpreter.containers import Containers
from kbitlint.source.interpreter.effort import Effort, TooLong
from kbitlint.source.interpreter.expressions import Expressions
from kbitlint.source.interpreter.functions import Functions
from kbitlint.source.interpreter.gradients import Gradients
from kbitlint.source.interpreter.imports import Imports
from kbitlint.source.interpreter.library_calls import LibraryCalls
from kbitlint.source.interpreter.loops import Loops
from kbitlint.source.interpreter.model_calls import ModelCalls
from kbitlint.source.interpreter.named_parts import NamedParts
from kbitlint.source.interpreter.path_state import PathState
from kbitlint.source.interpreter.snapshots import Recording, Snapshots
from kbitlint.source.interpreter.stages import stages_of
from kbitlint.source.interpreter.statements import Statements
from kbitlint.source.interpreter.tensors import Tensors
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
#: Number of later answers that a way may change.
_VARIED = 48
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
    BuiltinCalls,
    Containers,
    ModelCalls,
    NamedParts,
    CastParts,
    Gradients,
    Tensors,
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
    asking: frozenset[int] | None = None
    """The stages of the file in which its parent has asked something; None for the first path."""
    later: tuple[tuple[str, bool], ...] = ()
    """The questions that its parent answered afterwards, with these answers."""
    last: bool = False
    """Whether the way waits behind all others, as a varied one has been followed in its place."""


class PathSearch:
    """The ways through a file that are left to follow, and which of them is next.

    If all of them are followed, the order of discovery holds. If they are too many, each question first gets each of its
    answers once, the others unchanged. Then each way changes several answers at once, so that every two questions soon have
    had every pair of answers: two branches that are wrong together are seen, however many branches surround them.
    """

    def __init__(self) -> None:
        self._queue = [Way({})]
        self._single: set[tuple[str, bool]] = set()
        self._pairs: set[frozenset[tuple[str, bool]]] = set()
        self._uncounted: list[list[tuple[str, bool]]] = []
        """The answers of paths whose pairs are not in ``_pairs`` yet: they count only where ways are left out."""
        self._ends: set[tuple[str, bool]] = set()
        """The answers after which a path asks nothing more, as behind ``sys.exit()``."""
        self._followed = 0

    @property
    def left(self) -> bool:
        """Return whether ``MAX_PATHS`` leaves a way out."""
        return bool(self._queue)

    def pop(self) -> Way | None:
        """Return the next path; None if no path is left or ``MAX_PATHS`` are followed."""
        if not self._queue or self._followed >= MAX_PATHS:
            return None
        crowded = self._followed + sum(2 ** min(len(way.later), 6) for way in self._queue) > MAX_PATHS
        self._followed += 1
        if crowded:
            self._count()
        best = min(range(min(len(self._queue), _SEEN)), key=lambda index: (-self._worth(self._queue[index]), index))
        way = self._queue.pop(best)
        return self._varied(way) if crowded else way

    def _count(self) -> None:
        for answers in self._uncounted:
            self._pairs.update(map(frozenset, itertools.combinations(answers[:_SEEN], 2)))
        self._uncounted.clear()

    def _worth(self, way: Way) -> int:
        """Return how much is new in a way: its last answer, which differs from its parent's, alone or beside another one."""
        if not way.answers or way.last:
            return -way.last
        *others, last = way.answers.items()
        if last not in self._single:
            return len(way.answers) + _SEEN
        return self._new(others[-_SEEN:], last)

    def _new(self, others: Iterable[tuple[str, bool]], answer: tuple[str, bool]) -> int:
        """Return the number of answers beside which an answer has not been followed yet."""
        return sum(frozenset((answer, other)) not in self._pairs for other in others)

    def _varied(self, way: Way) -> Way:
        """Return a way with those later answers changed that make more new pairs so; the way itself then waits."""
        answers = dict(way.answers)
        if not answers or way.last or tuple(way.answers.items())[-1] not in self._single:
            return way  # alone, it shows what its own answer changes
        for key, answer in way.later[:_VARIED]:
            other = key, not answer
            if other in self._single and other not in self._ends:
                given = list(answers.items())[-_VARIED:]
                answers[key] = answer ^ (self._new(given, other) > self._new(given, (key, answer)))
        if not any(answers.get(key, answer) is not answer for key, answer in way.later):
            return way
        self._queue.append(dataclasses.replace(way, last=True))
        return Way(answers, way.asking)

    def branch(self, interpreter: ScriptInterpreter, way: Way) -> None:
        """Queue the opposite answers to the questions of a path that it has answered itself.

        Args:
            interpreter: The interpreter that has followed the path.
            way: The way that it was given.
        """
        prefix: dict[str, bool] = {}
        answers = [(key, interpreter.decisions[key]) for key in interpreter.asked]
        asking = frozenset(interpreter.asked.values())
        self._single.update(answers)
        self._uncounted.append(answers)
        if way.later and not any(key in interpreter.asked for key, _ in way.later):
            self._ends.add(tuple(way.answers.items())[-1])
        for number, (key, answer) in enumerate(answers):
            if key not in interpreter.given and len(self._queue) < _SEEN:
                later = tuple(answers[number + 1 :])
                self._queue.append(Way({**prefix, key: not answer}, asking, later))
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
            whole, recording = True, Recording(snapshots, share, way.asking, snapshots.resume(interpreter))
            try:
                interpreter.follow(stages, recording)
            except TooLong:
                whole, self.unfollowed = False, _too_long(most)
            trail = interpreter.trail
            left -= share - max(trail.effort.left, 0)
            self.paths.append(trail.path(whole=whole))
            self.calls.append(trail.calls)
            search.branch(interpreter, way)
        if search.left:
            self.unfollowed = (
                self.unfollowed or f"has more than {MAX_PATHS} ways through it, of which the most different are followed"
            )


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
