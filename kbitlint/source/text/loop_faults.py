"""What a loop of the file leaves out: the scale of gradients, accumulation, and the end of an evaluation's graphs."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING

from kbitlint.facts.own_loops import Act, LoopFault, Oversight
from kbitlint.source.nodes import children, last_name, walk
from kbitlint.source.text.own_loops import own_loops, turns_off
from kbitlint.source.text.placed_calls import FUNCTIONS, LOOPS, At, calls, made, optimizes, owner, placed

if TYPE_CHECKING:
    from collections.abc import Iterator

_CLIPS = ("clip_grad_norm_", "clip_grad_value_")
#: words of a file that accumulates in its own way, or leaves it to another engine
_ACCUMULATES = ("accumulate(", "sync_gradients", "no_sync", "gradient_state", "deepspeed", "megatron")
#: words of a file whose engine clears gradients itself, or whose step does
_CLEARS = ("deepspeed", "megatron", "fabric", ".grad=None", "set_to_none", "Lightning", "post_accumulate_grad")
_ACTS = {
    **dict.fromkeys(_CLIPS, "clip"),
    "clip_grad_norm": "clip",
    "step": "step",
    "backward": "backward",
    "zero_grad": "clear",
}
#: methods of a tensor whose result has the tensor's graph
_KEEPS = frozenset(("mean", "sum", "float", "cpu", "to", "cuda", "double"))


def loop_faults(module: ast.Module, text: str) -> Iterator[LoopFault]:
    """Yield what the file's loops leave out."""
    if "GradScaler" in text and "clip_grad_" in text and "unscale_" not in text:
        yield from _scaled_clips(module)
    if "Accelerator(" in text and "gradient_accumulation" in text and not any(one in text.lower() for one in _ACCUMULATES):
        yield from _unaccumulated(module)
    if ".eval()" in text and ".train(" in text and ".backward(" in text and "set_grad_enabled" not in text:
        yield from _kept_graphs(module)

    if "clip_grad_" in text and "zero_grad" in text:
        yield from _late_clips(module)
    if ".step()" in text and "sched" in text.lower():
        yield from _early_schedules(module)
    if "Accelerator(" in text and "fp16" in text and "GradScaler" not in text:
        yield from _skipped_scalers(module)
    if "zero_grad" not in text and ".grad = None" not in text and not any(one in text for one in _CLEARS):
        yield from _never_cleared(module)


def _late_clips(module: ast.Module) -> Iterator[LoopFault]:
    """Yield each clip behind the step of an optimizer, with no backward pass in between, and none before the step."""
    for loop in (node for node in walk(module) if isinstance(node, LOOPS)):
        acts = [(last_name(at.call.func), at) for at in placed(loop)]
        kinds = [_ACTS.get(name, "") if name != "step" or optimizes(owner(at.call)) else "" for name, at in acts]
        if kinds.count("clip") != 1 or "step" not in kinds or "backward" not in kinds:
            continue
        clip = kinds.index("clip")
        before = next((kind for kind in reversed(kinds[:clip]) if kind in ("step", "backward")), "")
        after = next((kind for kind in kinds[clip:] if kind in ("step", "backward", "clear")), "")
        steps = [at for (name, at), kind in zip(acts[:clip], kinds[:clip], strict=True) if kind == "step" and name == "step"]
        plain = bool(steps) and all(optimizes(owner(at.call)) for at in steps)
        if before == "step" and after in ("clear", "") and plain and "clear" in kinds:
            yield LoopFault(Oversight.LATE_CLIP, acts[clip][1].call.lineno, acts[clip][0], "")


def _early_schedules(module: ast.Module) -> Iterator[LoopFault]:
    """Yield the step of a schedule before that of its optimizer in the same round, behind the backward pass."""
    for loop in (node for node in walk(module) if isinstance(node, LOOPS)):
        acts = [at for at in placed(loop) if last_name(at.call.func) in ("step", "backward")]
        passes = [place for place, at in enumerate(acts) if last_name(at.call.func) == "backward"]
        if len(passes) != 1:
            continue
        steps = [at for at in acts[passes[0] + 1 :] if not at.call.args]
        moves = [at for at in steps if "sched" in owner(at.call).lower()]
        changes = [at for at in steps if optimizes(owner(at.call))]
        if len(moves) == len(changes) == 1 and steps[0] is moves[0] and moves[0].branches == changes[0].branches:
            yield LoopFault(Oversight.EARLY_SCHEDULE, moves[0].call.lineno, owner(moves[0].call), owner(changes[0].call))


def _skipped_scalers(module: ast.Module) -> Iterator[LoopFault]:
    """Yield each backward pass of a tensor where an Accelerator scales losses, and never goes backward itself."""
    accelerators = made(module, "Accelerator")
    found = [node for node in walk(module) if isinstance(node, ast.Call)]
    half = [
        name
        for name, values in accelerators.items()
        for value in values
        for one in getattr(value, "keywords", ())
        if one.arg == "mixed_precision" and isinstance(one.value, ast.Constant) and one.value.value == "fp16"
    ]
    passes = [one for one in found if last_name(one.func) == "backward"]
    prepared = any(last_name(one.func) == "prepare" and owner(one) in half for one in found)
    if half and passes and prepared and not any(owner(one) in accelerators or one.args for one in passes):
        yield LoopFault(Oversight.SKIPPED_SCALER, passes[0].lineno, "backward", half[0])


def _never_cleared(module: ast.Module) -> Iterator[LoopFault]:
    """Yield the step of each loop that goes backward and takes steps, in a file that clears no gradients."""
    empty = {node.lineno for node in walk(module) if isinstance(node, ast.For) and ast.unparse(node.iter) in ("[]", "()")}
    for loop in own_loops(module):
        step = next((one for one in loop.acts if one.act is Act.STEP), None)
        if step is not None and loop.line not in empty and any(one.act is Act.BACKWARD for one in loop.acts):
            yield LoopFault(Oversight.NEVER_CLEARED, step.line, f"{step.name}.step", "")


def _scaled_clips(module: ast.Module) -> Iterator[LoopFault]:
    """Yield each clip of gradients that the scaler has multiplied, between its backward pass and its step."""
    scalers = {name for name, values in made(module, "GradScaler").items() if all(map(_scales, values))}
    for loop in (node for node in walk(module) if isinstance(node, LOOPS)):
        behind: tuple[str, At] | None = None
        clip: At | None = None
        for at in placed(loop):
            function = at.call.func
            if not isinstance(function, (ast.Attribute, ast.Name)):
                continue
            if last_name(function) == "backward" and isinstance(function, ast.Attribute) and calls(function.value, "scale"):
                scaler = owner(function.value)
                behind, clip = ((scaler, at) if scaler in scalers else None), None
            elif behind is not None and _clips(at.call) and at.branches[: len(behind[1].branches)] == behind[1].branches:
                clip = at
            elif clip is not None and behind is not None and last_name(function) == "step" and owner(at.call) == behind[0]:
                if at.branches[: len(clip.branches)] == clip.branches:
                    yield LoopFault(Oversight.SCALED_CLIP, clip.call.lineno, last_name(clip.call.func), behind[0])
                behind = clip = None


def _scales(value: ast.expr) -> bool:
    """Return whether a value is a GradScaler that is on, with the scale that torch starts with."""
    on = (
        isinstance(one.value, ast.Constant) and one.value.value is True
        for one in getattr(value, "keywords", ())
        if one.arg == "enabled"
    )
    given = {one.arg for one in getattr(value, "keywords", ())}
    return calls(value, "GradScaler") and all(on) and not given & {"init_scale", None} and len(getattr(value, "args", ())) < 2


def _clips(call: ast.Call) -> bool:
    """Return whether a call is torch's clip, with a limit that is not scaled too."""
    known = isinstance(call.func, ast.Name) or owner(call).endswith("utils")
    return known and last_name(call.func) in _CLIPS and "scale" not in ast.unparse(call)


def _unaccumulated(module: ast.Module) -> Iterator[LoopFault]:
    """Yield each Accelerator in whose loop every round goes backward and takes a step."""
    single = {name: values[0] for name, values in made(module, "Accelerator").items() if len(values) == 1}
    rounds = {node.lineno: node for node in walk(module) if isinstance(node, LOOPS)}
    for loop in own_loops(module):
        acts = [one.act for one in loop.acts]
        if not loop.certain or Act.STEP not in acts or acts.count(Act.BACKWARD) != 1 or loop.line not in rounds:
            continue
        owners = {owner(at.call) for at in placed(rounds[loop.line]) if last_name(at.call.func) == "backward"}
        for name in owners & single.keys():
            step = next(one for one in loop.acts if one.act is Act.STEP)
            yield LoopFault(Oversight.NO_ACCUMULATION, single[name].lineno, f"{step.name}.step", name)


def _kept_graphs(module: ast.Module) -> Iterator[LoopFault]:
    """Yield each sum of losses of an evaluation that runs with gradients."""
    wrapped = any(
        isinstance(node, (ast.With, ast.AsyncWith))
        and any(turns_off(item.context_expr) for item in node.items)
        and _runs_own(module, node)
        for node in walk(module)
    )
    trained = {owner(node) for node in walk(module) if isinstance(node, ast.Call) and last_name(node.func) == "train"}
    if wrapped:
        return
    for body in _blocks(module):
        asleep: set[str] = set()
        for statement in body:
            if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Call):
                name = owner(statement.value)
                mode = last_name(statement.value.func)
                asleep = asleep | {name} if mode == "eval" else asleep - {name} if mode == "train" else asleep
            elif isinstance(statement, (ast.For, ast.AsyncFor)):
                yield from _sums(statement, asleep & trained)


def _runs_own(module: ast.Module, block: ast.With | ast.AsyncWith) -> bool:
    own = {node.name for node in walk(module) if isinstance(node, FUNCTIONS)}
    return any(isinstance(node, ast.Call) and last_name(node.func) in own for node in walk(block))


def _blocks(node: ast.AST) -> Iterator[list[ast.stmt]]:
    """Yield the blocks of statements that run with gradients, as far as the file shows."""
    if isinstance(node, FUNCTIONS) and node.decorator_list:
        return
    if isinstance(node, (ast.With, ast.AsyncWith)) and any(turns_off(item.context_expr) for item in node.items):
        return
    for name in ("body", "orelse", "finalbody"):
        block = getattr(node, name, None)
        if isinstance(block, list):
            yield block
    for child in children(node):
        yield from _blocks(child)


def _sums(loop: ast.For | ast.AsyncFor, models: set[str]) -> Iterator[LoopFault]:
    """Yield the statement of a loop over a whole data set that keeps the graph of each round's loss."""
    left_out = (ast.Break, ast.Return, ast.Delete)
    ended = any(isinstance(node, left_out) or calls(node, "backward", "step", "islice", "detach_") for node in walk(loop))
    with_graph: set[str] = set()
    for statement in _with_gradients(loop.body) if not ended else ():
        if isinstance(statement, ast.Assign) and len(statement.targets) == 1:
            target, value = ast.unparse(statement.targets[0]), statement.value
            added = isinstance(value, ast.BinOp) and isinstance(value.op, ast.Add) and ast.unparse(value.left) == target
            if added and isinstance(value, ast.BinOp) and _has_graph(value.right, models, with_graph):
                yield LoopFault(Oversight.KEPT_GRAPHS, statement.lineno, target, "")
            with_graph = with_graph | {target} if _has_graph(value, models, with_graph) else with_graph - {target}
        elif isinstance(statement, ast.AugAssign) and isinstance(statement.op, ast.Add):
            if isinstance(statement.target, ast.Name) and _has_graph(statement.value, models, with_graph, loss=True):
                yield LoopFault(Oversight.KEPT_GRAPHS, statement.lineno, statement.target.id, "")
        elif isinstance(statement, ast.Expr) and calls(statement.value, "append"):
            call: ast.Call = statement.value  # type: ignore[assignment]  # a call, as _calls has found
            if len(call.args) == 1 and _has_graph(call.args[0], models, with_graph, loss=True):
                yield LoopFault(Oversight.KEPT_GRAPHS, statement.lineno, owner(call), "")


def _with_gradients(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """Yield the statements of a block, and those in contexts that leave gradients on, as autocast."""
    for statement in body:
        if not isinstance(statement, (ast.With, ast.AsyncWith)):
            yield statement
        elif not any(turns_off(item.context_expr) for item in statement.items):
            yield from _with_gradients(statement.body)


def _has_graph(value: ast.expr, models: set[str], names: set[str], *, loss: bool = False) -> bool:
    """Return whether a value is an output of one of the models, or is computed from one with its graph."""
    if isinstance(value, ast.Name):
        return value.id in names
    if isinstance(value, ast.Attribute):
        return value.attr in ("loss", "logits") and _has_graph(value.value, models, names)
    if isinstance(value, ast.Subscript):
        return _has_graph(value.value, models, names)
    if isinstance(value, ast.BinOp):
        return any(_has_graph(side, models, names) for side in (value.left, value.right))
    if isinstance(value, ast.Call):
        if isinstance(value.func, ast.Attribute) and value.func.attr in _KEEPS:
            return _has_graph(value.func.value, models, names)
        return not loss and ast.unparse(value.func) in models
    return False
