"""Signs in the code of a script that it is launched on several processes."""

from __future__ import annotations

import ast
import re
from typing import TYPE_CHECKING

from kbitlint.facts.source import LaunchSign
from kbitlint.source.nodes import walk

if TYPE_CHECKING:
    from collections.abc import Iterable

_DISTRIBUTED = re.compile(
    r"\b(LOCAL_RANK|init_process_group|torchrun|accelerate launch|DistributedDataParallel|ddp_find_unused_parameters"
    r"|local_rank|ddp_backend|PartialState|deepspeed|strategy=.ddp\w*)\b"
)
_RANKS = ("LOCAL_RANK", "WORLD_SIZE", "RANK")
_ARGUMENTS = ("ddp_find_unused_parameters", "ddp_backend", "ddp_timeout")


def launch_signs(text: str, module: ast.Module) -> Iterable[LaunchSign]:
    """Yield the signs of a distributed launch in the code.

    Comments and docstrings are not searched: they may describe other scripts.
    """
    if _DISTRIBUTED.search(text) is None:
        return
    for statement in module.body:
        if isinstance(statement, (ast.Import, ast.ImportFrom)):
            continue
        if _refuses_ranks(statement):
            return  # the script ends under a launcher, so no sign in it tells of several processes
        apart = isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef))
        within = (statement.lineno, statement.end_lineno or statement.lineno) if apart else None
        for node in walk(statement):
            what, starts = _sign(node), _started(node)
            if what or starts:
                yield LaunchSign(what or starts, getattr(node, "lineno", statement.lineno), within, launcher=bool(starts))


def _refuses_ranks(statement: ast.stmt) -> bool:
    """Return whether a statement ends the script if a launcher has started it, as its environment shows."""
    if isinstance(statement, ast.Assert):
        return _tells_ranks(statement.test) is False
    if isinstance(statement, ast.If) and statement.body and _ends(statement.body[-1]):
        return _tells_ranks(statement.test) is True
    return False


def _ends(statement: ast.stmt) -> bool:
    call = statement.value if isinstance(statement, ast.Expr) else None
    name = call.func if isinstance(call, ast.Call) else None
    last = name.attr if isinstance(name, ast.Attribute) else name.id if isinstance(name, ast.Name) else ""
    return isinstance(statement, ast.Raise) or last in ("exit", "quit", "_exit")


def _tells_ranks(test: ast.expr) -> bool | None:
    """Return whether a condition holds for several processes, False if it holds for one, None if it is about something else."""
    if isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not):
        held = _tells_ranks(test.operand)
        return None if held is None else not held
    if not any(isinstance(node, ast.Constant) and node.value in _RANKS for node in ast.walk(test)):
        return None
    if not isinstance(test, ast.Compare):
        return True if isinstance(test, ast.Call) else None  # os.environ.get("LOCAL_RANK")
    other = test.comparators[0]
    value = other.value if isinstance(other, ast.Constant) else ...
    match test.ops[0]:
        case ast.In():
            return True
        case ast.NotIn():
            return False
        case ast.Is() | ast.Eq() if value in (None, 1, "1"):
            return False
        case ast.IsNot() | ast.NotEq() | ast.Gt() if value in (None, 1, "1"):
            return True
        case _:
            return None


def _sign(node: ast.AST) -> str:
    """Return the name of a sign of a distributed launch; empty if the node is none."""
    if isinstance(node, ast.Constant):
        return node.value if node.value in _RANKS and isinstance(node.value, str) else ""
    name = node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""
    if name in ("init_process_group", "DistributedDataParallel", "DDP"):
        return name
    return node.arg or "" if isinstance(node, ast.keyword) and node.arg in _ARGUMENTS else ""


def _started(node: ast.AST) -> str:
    """Return the strategy by which Lightning starts a process for each of several devices; empty if it does not."""
    if not isinstance(node, ast.Call):
        return ""
    name = node.func.attr if isinstance(node.func, ast.Attribute) else node.func.id if isinstance(node.func, ast.Name) else ""
    given = {one.arg: one.value.value for one in node.keywords if isinstance(one.value, ast.Constant)}
    strategy, devices = given.get("strategy"), given.get("devices")
    several = isinstance(devices, int) and not isinstance(devices, bool) and devices > 1
    found = name in ("Trainer", "Fabric") and several and isinstance(strategy, str) and strategy.startswith("ddp")
    return f"strategy={strategy!r}" if found else ""
