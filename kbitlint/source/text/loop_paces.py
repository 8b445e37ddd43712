"""What a loop of the file does in each round, and what it does in some: steps, schedules, scales and divided losses."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING

from kbitlint.facts.own_loops import LoopFault, Oversight
from kbitlint.source.nodes import last_name, walk
from kbitlint.source.text.placed_calls import LOOPS, At, assigned, calls, made, optimizes, owner, placed
from kbitlint.source.text.schedule_paces import counts_steps, schedule_paces

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_PREPARES = ("prepare", "prepare_optimizer", "prepare_scheduler")
#: arguments of an Accelerator by which it may accumulate
_COUNTS = ("gradient_accumulation_steps", "gradient_accumulation_plugin", "deepspeed_plugin", "deepspeed_plugins", None)


def loop_paces(module: ast.Module, text: str, *, counted: bool = False) -> Iterator[LoopFault]:
    """Yield what the file's loops do too often, too rarely or past the object that has to do it.

    Args:
        module: The file.
        text: Its text.
        counted: Whether its launch tells an Accelerator how many batches to accumulate.
    """
    values = assigned(module)
    if "clip_grad_" in text:
        yield from _clips_to_zero(module)
    if "GradScaler" in text:
        yield from _scalers(module, text)
    if "Accelerator(" in text and "deepspeed" not in text.lower() and "megatron" not in text.lower():
        yield from _accelerated(module, text, values, "" if counted else _meant(module, values))
    yield from _rounds(module, values)
    yield from schedule_paces(module, values)


def _clips_to_zero(module: ast.Module) -> Iterator[LoopFault]:
    for node in walk(module):
        if not isinstance(node, ast.Call) or not calls(node, "clip_grad_norm_", "clip_grad_value_"):
            continue
        given = [one.value for one in node.keywords if one.arg in ("max_norm", "clip_value")] or node.args[1:2]
        if given and isinstance(given[0], ast.Constant) and given[0].value == 0 and given[0].value is not False:
            yield LoopFault(Oversight.CLIPS_TO_ZERO, node.lineno, last_name(node.func), "")


def _scalers(module: ast.Module, text: str) -> Iterator[LoopFault]:
    """Yield what loops leave out of the order scale, unscale_, step, update."""
    names = [name for name, found in made(module, "GradScaler").items() if len(found) == 1 and _always_on(found[0])]
    for name in names:
        own = [node for node in walk(module) if isinstance(node, ast.Call) and owner(node) == name]
        used = {last_name(one.func): one for one in own}
        if "step" in used and "update" not in used and f"{name})" not in text and f"{name}," not in text:
            yield LoopFault(Oversight.NO_UPDATE, used["step"].lineno, "step", name)
        for loop in _loops(module):
            yield from _scaled_rounds(loop, name, steps="step" in used)


def _scaled_rounds(loop: ast.For | ast.AsyncFor | ast.While, name: str, *, steps: bool) -> Iterator[LoopFault]:
    acts = [(last_name(at.call.func), owner(at.call), at) for at in placed(loop)]
    scales = [at for method, by, at in acts if method == "scale" and by == name]
    own = [at for method, by, at in acts if method == "step" and by == name]
    if scales and not own and not steps:
        for method, by, at in acts:
            if method == "step" and "opt" in by.lower():
                yield LoopFault(Oversight.UNSCALED_STEP, at.call.lineno, f"{by}.step", name)
    for method, by, at in acts:
        if (
            method == "unscale_"
            and by == name
            and own
            and _in_each(at, own[0])
            and not any(one == "update" and by == name and _in_each(other, own[0]) for one, by, other in acts)
        ):
            yield LoopFault(Oversight.UNSCALES_EACH, at.call.lineno, "unscale_", name)


def _always_on(value: ast.expr) -> bool:
    given = {one.arg for one in getattr(value, "keywords", ())}
    return calls(value, "GradScaler") and not given & {"enabled", None}


def _in_each(one: At, other: At) -> bool:
    """Return whether a call runs in each round in which another one may run, and in further ones."""
    return len(one.branches) < len(other.branches) and other.branches[: len(one.branches)] == one.branches


def _accelerated(module: ast.Module, text: str, values: Mapping[str, list[ast.expr]], meant: str) -> Iterator[LoopFault]:
    """Yield the faults of loops with an Accelerator, in a file that means to accumulate if a name tells so."""
    for name, found in made(module, "Accelerator").items():
        call = found[0]
        if len(found) != 1 or not isinstance(call, ast.Call) or len(call.args) > 2 or f"{name}.gradient_acc" in text:
            continue
        count = next((one.value for one in call.keywords if one.arg in _COUNTS), None)
        prepared = _prepared(module, name)
        for block in _blocks(module, name):
            acts = list(placed(block))
            if meant and not any(one.arg in _COUNTS for one in call.keywords):
                yield LoopFault(Oversight.ACCUMULATES_ONE, block.lineno, meant, name)
            yield from _cleared(count, acts, name)
            if count is not None and not _is_one(count) and prepared is not None:
                yield from _unprepared(acts, prepared, values, name)
        half = any(one.arg == "mixed_precision" and _says(one.value, "fp16") for one in call.keywords)
        if half and prepared is not None and "GradScaler" not in text:
            yield from _past_the_scaler(module, prepared, values, name)
        if count is not None and not _is_one(count):
            yield from _divided(module, values, name, count)


def _prepared(module: ast.Module, name: str) -> set[str] | None:
    """Return what the file gives an Accelerator to prepare; None if that is not known."""
    found: set[str] = set()
    for node in walk(module):
        if isinstance(node, ast.Call) and calls(node, *_PREPARES) and owner(node) == name:
            if any(isinstance(one, ast.Starred) for one in node.args):
                return None
            found |= {ast.unparse(one) for one in node.args}
    return found or None


def _blocks(module: ast.Module, name: str) -> Iterator[ast.With]:
    """Yield the blocks in which an Accelerator accumulates."""
    for node in walk(module):
        if isinstance(node, ast.With) and any(
            calls(one.context_expr, "accumulate") and owner(one.context_expr) == name for one in node.items
        ):
            yield node


def _cleared(count: ast.expr | None, acts: list[At], name: str) -> Iterator[LoopFault]:
    """Yield gradients that a block clears before it computes its own, those of earlier batches with the last one."""
    if count is None or _is_one(count):
        return
    passes = [place for place, at in enumerate(acts) if last_name(at.call.func) == "backward"]
    clears = [place for place, at in enumerate(acts) if last_name(at.call.func) == "zero_grad" and not at.branches]
    if len(passes) == 1 and clears and all(place < passes[0] for place in clears):
        at = acts[clears[0]]
        yield LoopFault(Oversight.CLEARS_EACH, at.call.lineno, f"{owner(at.call)}.zero_grad", name)


def _meant(module: ast.Module, values: Mapping[str, list[ast.expr]]) -> str:
    """Return the name to which the file gives a number of batches to accumulate, above one; empty if there is none."""
    given = [(name, found[0]) for name, found in values.items() if len(found) == 1]
    for node in walk(module):
        if isinstance(node, ast.AnnAssign) and node.value is not None:
            given.append((ast.unparse(node.target), node.value))
        elif isinstance(node, ast.Call) and calls(node, "add_argument") and node.args:
            name = ast.unparse(node.args[0]).strip("'\"-")
            given += [(name, one.value) for one in node.keywords if one.arg == "default"]
    counts = (name for name, value in given if "accum" in name.lower() and _number(value, {}) is not None)
    return next(counts, "")


def _unprepared(acts: list[At], prepared: set[str], values: Mapping[str, list[ast.expr]], name: str) -> Iterator[LoopFault]:
    """Yield the steps of optimizers and schedules that do not wait for the last batch, as they are not prepared."""
    for at in acts:
        by = owner(at.call)
        if last_name(at.call.func) != "step" or at.branches or by in prepared or len(values.get(by, ())) != 1:
            continue
        if optimizes(by) and "scal" not in by.lower():
            yield LoopFault(Oversight.UNPREPARED_STEP, at.call.lineno, f"{by}.step", name)
        elif "sched" in by.lower() and counts_steps(values[by][0], values):
            yield LoopFault(Oversight.FAST_SCHEDULE, at.call.lineno, f"{by}.step", name)


def _past_the_scaler(
    module: ast.Module, prepared: set[str], values: Mapping[str, list[ast.expr]], name: str
) -> Iterator[LoopFault]:
    for loop in _loops(module):
        acts = list(placed(loop))
        if not any(last_name(at.call.func) == "backward" and owner(at.call) == name for at in acts):
            continue
        for at in acts:
            by = owner(at.call)
            if (
                last_name(at.call.func) == "step"
                and "opt" in by.lower()
                and by not in prepared
                and len(values.get(by, ())) == 1
            ):
                yield LoopFault(Oversight.UNSCALED_STEP, at.call.lineno, f"{by}.step", name)


def _divided(module: ast.Module, values: Mapping[str, list[ast.expr]], name: str, count: ast.expr) -> Iterator[LoopFault]:
    """Yield each division of a loss by the number of batches, which the Accelerator's backward pass divides too."""
    for loop in _loops(module):
        passes = [at.call for at in placed(loop) if last_name(at.call.func) == "backward" and owner(at.call) == name]
        given = [one.args[0] for one in passes if one.args]
        names = {one.id for one in given if isinstance(one, ast.Name)}
        last = max((one.lineno for one in passes), default=0)
        parts = [(one, one.lineno) for one in given]
        for node in walk(loop):
            if getattr(node, "lineno", 0) >= last:
                continue  # what is logged behind the backward pass
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) in names:
                parts.append((node.value, node.lineno))
            elif isinstance(node, ast.AugAssign) and isinstance(node.op, ast.Div) and ast.unparse(node.target) in names:
                parts.append((ast.BinOp(node.target, ast.Div(), node.value), node.lineno))
        for value, line in parts:
            if isinstance(value, ast.BinOp) and isinstance(value.op, ast.Div) and _same(value.right, count, values):
                yield LoopFault(Oversight.DIVIDES_TWICE, line, ast.unparse(value.right), name)


def _same(one: ast.expr, other: ast.expr, values: Mapping[str, list[ast.expr]]) -> bool:
    """Return whether a divisor is the number of batches that an Accelerator accumulates."""
    written = ast.unparse(one)
    if written == ast.unparse(other) or written.endswith(".gradient_accumulation_steps"):
        return True
    numbers = [_number(value, values) for value in (one, other)]
    return "accum" in written.lower() or (numbers[0] is not None and numbers[0] == numbers[1])


def _number(value: ast.expr, values: Mapping[str, list[ast.expr]]) -> int | None:
    if isinstance(value, ast.Name) and len(values.get(value.id, ())) == 1:
        value = values[value.id][0]
    return value.value if isinstance(value, ast.Constant) and isinstance(value.value, int) and value.value > 1 else None


def _is_one(value: ast.expr) -> bool:
    return isinstance(value, ast.Constant) and value.value == 1


def _says(value: ast.expr, text: str) -> bool:
    return isinstance(value, ast.Constant) and value.value == text


def _loops(module: ast.Module) -> Iterator[ast.For | ast.AsyncFor | ast.While]:
    return (node for node in walk(module) if isinstance(node, LOOPS))


def _rounds(module: ast.Module, values: Mapping[str, list[ast.expr]]) -> Iterator[LoopFault]:
    """Yield what a loop without an Accelerator does in each round, beside steps that it takes in some."""
    for loop in _loops(module):
        acts = list(placed(loop))
        passes = [at for at in acts if last_name(at.call.func) == "backward"]
        steps = [at for at in acts if last_name(at.call.func) == "step" and optimizes(owner(at.call))]
        if len(passes) == len(steps) == 1 and _in_each(passes[0], steps[0]) and _by_count(loop, steps[0]):
            yield from _each_round(acts, passes[0], steps[0], values)


def _by_count(loop: ast.AST, step: At) -> bool:
    """Return whether the branch around a step counts rounds."""
    tests = [node.test for node in walk(loop) if isinstance(node, ast.If) and node.lineno == step.branches[-1]]
    return any(isinstance(one, ast.Mod) for test in tests for node in walk(test) for one in [getattr(node, "op", None)])


def _each_round(acts: list[At], back: At, step: At, values: Mapping[str, list[ast.expr]]) -> Iterator[LoopFault]:
    cleared = ("model", owner(step.call))
    clears = [at for at in acts if last_name(at.call.func) == "zero_grad" and owner(at.call) in cleared and _in_each(at, step)]
    for at in clears[:1]:
        yield LoopFault(Oversight.CLEARS_EACH, at.call.lineno, f"{owner(at.call)}.zero_grad", "")
    for at in acts:
        by = owner(at.call)
        moves = last_name(at.call.func) == "step" and "sched" in by.lower() and at.branches == back.branches
        if moves and len(values.get(by, ())) == 1 and counts_steps(values[by][0], values):
            yield LoopFault(Oversight.FAST_SCHEDULE, at.call.lineno, f"{by}.step", "")
