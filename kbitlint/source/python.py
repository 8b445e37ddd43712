"""Reads a Python file or a notebook, and collects its facts."""

from __future__ import annotations

import ast
import re
import warnings
from typing import TYPE_CHECKING

from kbitlint.limits import current
from kbitlint.source.direct import checkpoint_calls
from kbitlint.source.effects import Trail
from kbitlint.source.facts import Mention, Path, SourceFacts
from kbitlint.source.following import Follower
from kbitlint.source.objects import Effort, TooLong
from kbitlint.source.relevance import Relevance, worth_following
from kbitlint.source.suppressions import ignores
from kbitlint.source.text import Text, has_more_tokens, import_place
from kbitlint.source.values import UNKNOWN, Argument, Call, Span
from kbitlint.upstream.versions import installed

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path as FilePath

#: paths that are followed; branches of a real script that matter seldom make more than a dozen
MAX_PATHS = 40
#: of the steps that a file may take, the share that one path may
_SHARE = 3

_DISTRIBUTED = re.compile(
    r"\b(LOCAL_RANK|init_process_group|torchrun|accelerate launch|DistributedDataParallel|ddp_find_unused_parameters"
    r"|local_rank|ddp_backend|PartialState|deepspeed)\b"
)
_ARGUMENTS = ("ddp_find_unused_parameters", "ddp_backend", "ddp_timeout")


class SourceError(ValueError):
    """A text that is no Python; the message says where."""

    def __init__(self, problem: str, line: int | None = None) -> None:
        super().__init__(problem)
        self.line = line


def collect(file: str, text: str, versions: Mapping[str, str] | None = None, beside: FilePath | None = None) -> SourceFacts:
    """The facts of a Python source text; ``beside`` is its folder. Raises SourceError where it does not parse."""
    limits = current()
    if has_more_tokens(text, limits.max_tokens):
        raise SourceError(
            f"holds more than {limits.max_tokens:,} words and signs, and is skipped"
            " (max-tokens of [tool.kbitlint] sets how many)"
        )
    module = parsed(text)
    versions = installed() if versions is None else versions
    source = Text(text)
    ways = _Ways()
    try:
        if worth_following(text.encode("utf-8", "replace")):
            ways.follow(source, module, versions, beside)
        calls = ways.calls
        calls.append({call.span: call for call in checkpoint_calls(source, module)})
    except RecursionError as error:
        raise SourceError("is nested too deeply to be followed") from error
    return SourceFacts(
        file,
        text,
        tuple(_imports(module)),
        import_place(source, module.body),
        _agreed(calls),
        tuple(ways.paths),
        tuple(sorted(_mentions(text, module), key=lambda mention: mention.line)),
        versions,
        ignores=ignores(text, module),
        unfollowed=ways.unfollowed,
    )


def parsed(text: str) -> ast.Module:
    """The syntax tree. Raises SourceError where there is none."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # invalid escape sequences of other people's strings
            return ast.parse(text)
    except SyntaxError as error:
        raise SourceError(f"is not valid Python: {error.msg}", error.lineno) from error
    except (ValueError, RecursionError, MemoryError) as error:
        raise SourceError(f"is not usable Python: {type(error).__name__}") from error


class _Ways:
    """The ways through a file: one for each combination of the unknown conditions that matter, the first ones first."""

    def __init__(self) -> None:
        self.paths: list[Path] = []
        self.calls: list[dict[Span, Call]] = []
        self.unfollowed = ""
        """What was not followed; empty where everything was."""

    def follow(self, source: Text, module: ast.Module, versions: Mapping[str, str], beside: FilePath | None) -> None:
        """Follow the file as often as it takes."""
        relevance = Relevance(module)
        queue: list[dict[str, bool]] = [{}]
        most = left = current().max_steps
        for decisions in queue:
            if left <= 0:
                self.unfollowed = _too_long(most)
                break
            share = min(most // _SHARE + 1, left)
            trail = Trail(versions, beside=beside, effort=Effort(share))
            follower = Follower(source, trail, relevance, decisions)
            whole = True
            try:
                follower.follow(module)
            except TooLong:
                whole, self.unfollowed = False, _too_long(most)
            left -= share - max(trail.effort.left, 0)
            self.paths.append(trail.path(whole=whole))
            self.calls.append(trail.calls)
            if _branch(queue, follower):
                self.unfollowed = (
                    self.unfollowed or f"has more than {MAX_PATHS} ways through it, of which the first are followed"
                )


def _too_long(most: int) -> str:
    return (
        f"takes more than {most // _SHARE:,} steps on one way through it, or {most:,} on all, and is not followed to its end"
        " (max-steps of [tool.kbitlint] sets how many)"
    )


def _branch(queue: list[dict[str, bool]], follower: Follower) -> bool:
    """Queue the other answers to what a path was asked; return whether some were left out."""
    prefix: dict[str, bool] = {}
    for key in follower.asked:
        if key not in follower.given:
            if len(queue) >= MAX_PATHS:
                return True
            queue.append({**prefix, key: False})
        prefix[key] = follower.decisions[key]
    return False


def _agreed(paths: Iterable[Mapping[Span, Call]]) -> tuple[Call, ...]:
    """Every call once, with UNKNOWN for arguments that the paths do not agree on."""
    found: dict[Span, Call] = {}
    for calls in paths:
        for span, call in calls.items():
            found[span] = call if span not in found else _both(found[span], call)
    return tuple(sorted(found.values(), key=lambda call: (call.span, call.callee)))


def _both(one: Call, other: Call) -> Call:
    if one == other:
        return one
    arguments = []
    others = {argument.name: argument for argument in reversed(other.arguments)}  # the first of a name counts
    for argument in one.arguments:
        same = others.get(argument.name)
        if same is not None and same.value == argument.value:
            arguments.append(argument)
        else:
            arguments.append(Argument(argument.name, UNKNOWN, argument.span, argument.whole))
    complete = one.complete and other.complete and len(one.arguments) == len(other.arguments)
    return Call(one.callee, one.span, tuple(arguments), complete, one.style, max(one.tail, other.tail))


def _imports(module: ast.Module) -> Iterable[tuple[str, str]]:
    for statement in module.body:
        if isinstance(statement, ast.Import):
            for alias in statement.names:
                yield (alias.name, alias.asname or alias.name)
        elif isinstance(statement, ast.ImportFrom) and not statement.level:
            for alias in statement.names:
                yield (f"{statement.module}.{alias.name}", alias.asname or alias.name)


def _mentions(text: str, module: ast.Module) -> Iterable[Mention]:
    """Signs of a distributed launch, in code; comments and docstrings tell about other scripts too."""
    if _DISTRIBUTED.search(text) is None:
        return
    for statement in module.body:
        if isinstance(statement, (ast.Import, ast.ImportFrom)):
            continue
        apart = isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef))
        within = (statement.lineno, statement.end_lineno or statement.lineno) if apart else None
        for node in ast.walk(statement):
            what = _sign(node)
            if what:
                yield Mention(what, getattr(node, "lineno", statement.lineno), within)


def _sign(node: ast.AST) -> str:
    """The name of a sign of a distributed launch, or nothing."""
    if isinstance(node, ast.Constant):
        return node.value if node.value in ("LOCAL_RANK", "WORLD_SIZE", "RANK") and isinstance(node.value, str) else ""
    name = node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""
    if name in ("init_process_group", "DistributedDataParallel", "DDP"):
        return name
    return node.arg or "" if isinstance(node, ast.keyword) and node.arg in _ARGUMENTS else ""
