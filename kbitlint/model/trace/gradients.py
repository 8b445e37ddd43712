"""Why a gradient does not arrive, read off what the forward pass did and the graph it left."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from kbitlint.facts.trace import CheckpointCall, Cut

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(slots=True)
class ForwardRecord:
    """What the forward pass showed of each module, by path."""

    gives_grad: dict[str, bool] = field(default_factory=dict)
    """Whether a floating output of the module required grad, for every module that ran."""
    entered_without_grad: set[str] = field(default_factory=set)
    """Modules that ran while no gradients were recorded."""
    checkpoint_calls: list[CheckpointCall] = field(default_factory=list)


def why_cut(
    parameter: Tensor,
    owner: str,
    passage: ForwardRecord,
    used: str | None,
    used_without_grad: str | None,
    detached: list[tuple[str, Tensor]],
) -> tuple[Cut, str]:
    """The reason why a parameter got no gradient, and the module it lies in.

    Args:
        parameter: The parameter.
        owner: The path of the module that holds it.
        passage: What the forward pass showed.
        used: Where it was first computed with while gradients were recorded, or None.
        used_without_grad: Where it was first computed with while they were not, or None.
        detached: Every detach of a tensor that required grad, with the module that did it.
    """
    around = list(_ancestors(owner))
    cutting = {call.path for call in passage.checkpoint_calls if call.cuts}
    call = next((path for path in around if path in cutting), None)
    if call is not None and used is None and used_without_grad is not None:
        return Cut.REENTRANT, call
    if used is None and used_without_grad is None:
        silent = _silent(around, passage)
        return (Cut.NOT_CALLED, silent[-1]) if silent else (Cut.NOT_USED, owner)
    if used is None:
        without = [path for path in around if path in passage.entered_without_grad]
        return Cut.NO_GRAD, without[-1] if without else str(used_without_grad)
    cut = next((path for path in around if passage.gives_grad.get(path) is False), None)
    within = [(path, tensor) for path, tensor in detached if cut is None or path == cut or path.startswith(f"{cut}.")]
    for path, tensor in within:
        if tensor is parameter or _depends_on(tensor, parameter):
            return Cut.DETACHED, path
    return (Cut.NOT_IN_LOSS, owner) if cut is None else (Cut.CUT, cut)


def _silent(around: list[str], passage: ForwardRecord) -> list[str]:
    """The modules around a parameter that did not run, without lists whose members did."""
    silent = list(itertools.takewhile(lambda path: path not in passage.gives_grad, around))
    while silent and any(path.startswith(f"{silent[-1]}.") for path in passage.gives_grad):
        silent.pop()
    return silent


def _ancestors(path: str) -> list[str]:
    """The path and everything around it, innermost first, without the model itself."""
    found = []
    while path:
        found.append(path)
        path = path.rpartition(".")[0]
    return found


def _depends_on(tensor: Tensor, parameter: Tensor) -> bool:
    """Whether the graph of a tensor leads back to a parameter."""
    todo: list[Any] = [tensor.grad_fn]
    seen: set[Any] = set()
    while todo:
        node = todo.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if getattr(node, "variable", None) is parameter:
            return True
        todo += [further for further, _ in node.next_functions]
    return False
