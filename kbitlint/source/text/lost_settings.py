"""Configs that a script makes and loses: the same name is bound again before anything reads it."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING, NamedTuple

from kbitlint.source.nodes import last_name, walk

if TYPE_CHECKING:
    from collections.abc import Iterator

_ENDS = ("TrainingArguments", "LoraConfig", "BitsAndBytesConfig", "SFTConfig", "DPOConfig", "KTOConfig", "GRPOConfig")
#: keywords that tell nothing of a training
_QUIET = frozenset(("output_dir", "report_to", "logging_dir", "run_name", "logging_steps"))


class Lost(NamedTuple):
    """A config whose settings are lost."""

    name: str
    line: int
    keywords: tuple[str, ...]
    """The settings that the later config leaves out; empty for a config of a loop."""
    later: int
    """The line that binds the name again; 0 for a config that each round of a loop makes anew."""


def lost_settings(module: ast.Module) -> Iterator[Lost]:
    """Yield the configs that nothing reads before their name is bound again."""
    for node in walk(module):
        for block in (getattr(node, "body", None), getattr(node, "orelse", None), getattr(node, "finalbody", None)):
            if isinstance(block, list):
                yield from _rebound(block)
                yield from _remade(block)


def _rebound(block: list[ast.stmt]) -> Iterator[Lost]:
    """Yield the configs of a block whose name it binds to another config before anything reads it."""
    made: dict[str, tuple[int, ast.Call]] = {}
    for statement in block:
        bound = _config(statement)
        read = bound[1] if bound is not None else statement
        for name in {one.id for one in walk(read) if isinstance(one, ast.Name)} if made else ():
            made.pop(name, None)
        if bound is None:
            continue
        name, call = bound
        earlier = made.get(name)
        lost = _left_out(earlier[1], call) if earlier is not None else ()
        if earlier is not None and lost:
            yield Lost(name, earlier[0], lost, statement.lineno)
        made[name] = statement.lineno, call


def _remade(block: list[ast.stmt]) -> Iterator[Lost]:
    """Yield the configs that each round of a loop makes for its own value, and that only code behind the loop reads."""
    for number, loop in enumerate(block):
        if not isinstance(loop, ast.For) or any(isinstance(one, (ast.Break, ast.Return)) for one in walk(loop)):
            continue
        targets = {one.id for one in walk(loop.target) if isinstance(one, ast.Name)}
        for statement in loop.body:
            bound = _config(statement)
            if bound is None or not any(isinstance(one, ast.Name) and one.id in targets for one in walk(bound[1])):
                continue
            reads = [one for one in walk(loop) if isinstance(one, ast.Name) and one.id == bound[0]]
            if len(reads) == 1 and any(_mentions(one, bound[0]) for one in block[number + 1 :]):
                yield Lost(bound[0], statement.lineno, (), 0)


def _config(statement: ast.stmt) -> tuple[str, ast.Call] | None:
    """Return the name and the call of ``name = LoraConfig(...)``; None for every other statement."""
    if not isinstance(statement, ast.Assign) or len(statement.targets) != 1 or not isinstance(statement.targets[0], ast.Name):
        return None
    call = statement.value
    known = isinstance(call, ast.Call) and last_name(call.func).endswith(_ENDS)
    return (statement.targets[0].id, call) if known and isinstance(call, ast.Call) else None


def _left_out(earlier: ast.Call, later: ast.Call) -> tuple[str, ...]:
    """Return the keywords of a config that a later one leaves out; empty if either unpacks a dict."""
    given = [{one.arg for one in call.keywords} for call in (earlier, later)]
    alike = last_name(earlier.func) == last_name(later.func) or _trains(earlier, later)
    if not alike or None in given[0] | given[1]:
        return ()
    return tuple(one.arg for one in earlier.keywords if one.arg and one.arg not in given[1] | _QUIET)


def _trains(*calls: ast.Call) -> bool:
    """Return whether all configs are arguments of trainers."""
    return all(not last_name(call.func).endswith(("LoraConfig", "BitsAndBytesConfig")) for call in calls)


def _mentions(node: ast.AST, name: str) -> bool:
    return any(isinstance(one, ast.Name) and one.id == name for one in walk(node))
