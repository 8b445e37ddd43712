"""The execution paths of a file: one pass for each combination of branches that the file leaves open.

This file combines the interpreter's parts. No part imports it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kbitlint.facts.values import UNKNOWN, Argument, Call, Span
from kbitlint.limits import current
from kbitlint.source.interpreter.calls import Calls
from kbitlint.source.interpreter.command_line import CommandLine
from kbitlint.source.interpreter.expressions import Expressions
from kbitlint.source.interpreter.functions import Functions
from kbitlint.source.interpreter.library_calls import LibraryCalls
from kbitlint.source.interpreter.loops import Loops
from kbitlint.source.interpreter.model_calls import ModelCalls
from kbitlint.source.interpreter.objects import Effort, TooLong
from kbitlint.source.interpreter.path_state import PathState
from kbitlint.source.interpreter.relevance import Relevance
from kbitlint.source.interpreter.statements import Statements

if TYPE_CHECKING:
    import ast
    from collections.abc import Iterable, Mapping
    from pathlib import Path as FilePath

    from kbitlint.facts.source import ExecutionPath
    from kbitlint.source.offsets import Text

#: Number of paths that are followed. A real script seldom has more than twelve branches that matter.
MAX_PATHS = 40
#: One path may take ``max_steps // _SHARE + 1`` of a file's steps.
_SHARE = 3


class ScriptInterpreter(Statements, Loops, Functions, CommandLine, Calls, LibraryCalls, ModelCalls, Expressions):
    """All parts combined: the interpreter of one path through a file."""


class ExecutionPaths:
    """The execution paths of a file: one for each combination of the unknown conditions that matter, in order of discovery."""

    def __init__(self) -> None:
        self.paths: list[ExecutionPath] = []
        self.calls: list[dict[Span, Call]] = []
        self.unfollowed = ""
        """The message about the part of the file that was not followed; empty if all of it was."""

    def follow(self, source: Text, module: ast.Module, versions: Mapping[str, str], beside: FilePath | None) -> None:
        """Follow the file once for each path.

        Args:
            source: The text of the file.
            module: Its syntax tree.
            versions: The versions of the libraries whose behaviour is modelled.
            beside: The folder of the script, in which configuration files that it names are searched.
        """
        relevance = Relevance(module)
        queue: list[dict[str, bool]] = [{}]
        most = left = current().max_steps
        for decisions in queue:
            if left <= 0:
                self.unfollowed = _too_long(most)
                break
            share = min(most // _SHARE + 1, left)
            trail = PathState(versions, beside=beside, effort=Effort(share))
            interpreter = ScriptInterpreter(source, trail, relevance, decisions)
            whole = True
            try:
                interpreter.follow(module)
            except TooLong:
                whole, self.unfollowed = False, _too_long(most)
            left -= share - max(trail.effort.left, 0)
            self.paths.append(trail.path(whole=whole))
            self.calls.append(trail.calls)
            if _branch(queue, interpreter):
                self.unfollowed = (
                    self.unfollowed or f"has more than {MAX_PATHS} ways through it, of which the first are followed"
                )


def _too_long(most: int) -> str:
    return (
        f"takes more than {most // _SHARE:,} steps on one way through it, or {most:,} on all, and is not followed to its end"
        " (max-steps of [tool.kbitlint] sets how many)"
    )


def _branch(queue: list[dict[str, bool]], interpreter: ScriptInterpreter) -> bool:
    """Queue the opposite answers to the questions of a path; return whether ``MAX_PATHS`` left one out."""
    prefix: dict[str, bool] = {}
    for key in interpreter.asked:
        if key not in interpreter.given:
            if len(queue) >= MAX_PATHS:
                return True
            queue.append({**prefix, key: False})
        prefix[key] = interpreter.decisions[key]
    return False


def agreed(paths: Iterable[Mapping[Span, Call]]) -> tuple[Call, ...]:
    """Return each call of all paths once; an argument on which the paths disagree is UNKNOWN."""
    found: dict[Span, Call] = {}
    for calls in paths:
        for span, call in calls.items():
            found[span] = call if span not in found else _both(found[span], call)
    return tuple(sorted(found.values(), key=lambda call: (call.span, call.callee)))


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
