"""Snapshots of a path between two stages of a file, from which other paths start.

Two paths of a file are the same up to the first question that they answer differently. A path that starts from a snapshot
takes the steps of the shared part as if it had followed it: it finds the same, and its budget is as small.
"""

from __future__ import annotations

import dataclasses
from dataclasses import field
from typing import TYPE_CHECKING, Any

from kbitlint.lazy_dataclass import dataclass
from kbitlint.source.interpreter.objects import (
    Class,
    Entry,
    Function,
    Output,
    Parameters,
    Record,
    Scope,
    Sequence,
    Submodule,
    Tensor,
    TrackedModel,
    Trainer,
)
from kbitlint.source.interpreter.path_state import PathState

if TYPE_CHECKING:
    from collections.abc import Mapping

    from kbitlint.source.interpreter.base import Interpreter

#: Number of snapshots that are kept for one file.
_KEPT = 16
#: Steps of a path that take longer than a snapshot of an ordinary file.
_WORTH = 1_000
#: Number of values of the largest snapshot.
_MOST = 50_000
#: Types that a path changes. All others in its state are frozen and shared, as syntax trees are.
_CHANGING = frozenset(
    {Class, Function, Output, Parameters, PathState, Record, Scope, Sequence, Submodule, Tensor, TrackedModel, Trainer}
)
#: Types whose values are copied, or may hold such.
_COPIED = _CHANGING | {Entry, dict, list, set, tuple}
_SLOTS = {kind: tuple(item.name for item in dataclasses.fields(kind)) for kind in _CHANGING}
#: The attributes of an interpreter that hold the state of its path. Between two stages, the others have their first values.
_STATE = ("modules", "trail", "asked", "equal", "moved", "module", "scope", "used", "units", "stage", "instance")


class _TooLargeError(Exception):
    """A state with more values than ``_MOST``."""


@dataclass(slots=True)
class _Copier:
    """Copies a graph of values, and keeps which of them are the same object."""

    copies: dict[int, Any] = field(default_factory=dict)
    """The copy of each value, by the id of the value."""
    todo: list[tuple[Any, Any]] = field(default_factory=list)
    """(value, its copy without content) pairs. A list in place of recursion: a script nests values as deep as it likes."""

    def copied(self, value: Any) -> Any:
        """Return the copy of a value with all that it refers to.

        Raises:
            _TooLargeError: There are more than ``_MOST`` values.
        """
        made = self._copy(value)
        while self.todo:
            old, new = self.todo.pop()
            if type(new) is dict:
                new.update({name: self._copy(item) if type(item) in _COPIED else item for name, item in old.items()})
            elif type(new) is list:
                new += [self._copy(item) if type(item) in _COPIED else item for item in old]
            else:
                for name in _SLOTS[type(old)]:
                    item = getattr(old, name)
                    setattr(new, name, self._copy(item) if type(item) in _COPIED else item)
        return made

    def _copy(self, value: Any) -> Any:
        kind = type(value)
        if kind in _CHANGING or kind is dict or kind is list:
            made = self.copies.get(id(value))
            if made is None:
                made = self.copies[id(value)] = object.__new__(kind) if kind in _CHANGING else kind()
                self.todo.append((value, made))
                if len(self.copies) > _MOST:
                    raise _TooLargeError
            return made
        if kind is Entry:
            return Entry(self._copy(value.value), value.span, value.whole) if type(value.value) in _COPIED else value
        if kind is set:
            return set(value)
        return tuple(map(self._copy, value)) if kind is tuple and value else value


def _copied(state: Mapping[str, Any]) -> dict[str, Any]:
    copier = _Copier()
    made: dict[str, Any] = copier.copied(dict(state))
    trail: PathState = made["trail"]
    copies = copier.copies  # a scope that is not among them is gone
    trail.base_names = {(id(copies[scope]), name) for scope, name in trail.base_names if scope in copies}
    return made


@dataclass(frozen=True, slots=True)
class _Snapshot:
    state: dict[str, Any]
    answers: dict[str, bool]
    """The answers that the path has given so far, by question."""
    spent: int
    """The steps that the path has taken so far."""


@dataclass(slots=True)
class Snapshots:
    """The snapshots of the paths of one file, the one used last at the end."""

    kept: list[_Snapshot] = field(default_factory=list)
    _off: bool = False
    """Whether a state was too large to be copied."""

    def resume(self, interpreter: Interpreter) -> int:
        """Put a new interpreter into the latest state that its path shares with an earlier one; return its steps."""
        given, left = interpreter.given, interpreter.effort.left
        fitting = [
            one
            for one in self.kept
            if one.spent <= left and all(given.get(question) is answer for question, answer in one.answers.items())
        ]
        if not fitting:
            return 0
        best = max(fitting, key=lambda one: one.spent)
        self.kept.remove(best)
        self.kept.append(best)
        for name, value in _copied(best.state).items():
            setattr(interpreter, name, value)
        interpreter.effort.left = left - best.spent
        interpreter.trail.effort = interpreter.effort
        return best.spent

    def take(self, interpreter: Interpreter, spent: int) -> bool:
        """Keep the state of a path that has taken so many steps; return whether it was kept."""
        if self._off:
            return False
        try:
            state = _copied({name: getattr(interpreter, name) for name in _STATE})
        except _TooLargeError:
            self._off = True
            return False
        answers = {question: interpreter.decisions[question] for question in interpreter.asked}
        self.kept = [*self.kept[1 - _KEPT :], _Snapshot(state, answers, spent)]
        return True


@dataclass(slots=True)
class Recording:
    """The snapshots that one path takes."""

    snapshots: Snapshots
    share: int
    """The steps that the path may take."""
    asking: frozenset[int] | None
    """The stages in which the path that this one differs from has asked something; None for the first path."""
    last: int
    """The steps up to the last snapshot, or to the one that the path started from."""

    def reached(self, interpreter: Interpreter) -> None:
        """Take a snapshot before a stage if another path is likely to start there, and far from the last one."""
        spent = self.share - interpreter.effort.left
        far = spent - self.last
        likely = far >= _WORTH if self.asking is None else far > _WORTH // 4 and interpreter.stage in self.asking
        if likely and self.snapshots.take(interpreter, spent):
            self.last = spent
