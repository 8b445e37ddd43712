"""The reason why a gradient does not arrive, from the record of the forward pass and its autograd graph."""

from __future__ import annotations

import itertools
from dataclasses import field
from typing import TYPE_CHECKING, Any

from kbitlint.facts.trace import CheckpointCall, Cut
from kbitlint.lazy_dataclass import dataclass

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(slots=True)
class ForwardRecord:
    """The record of the forward pass, by module path."""

    gives_grad: dict[str, bool] = field(default_factory=dict)
    """Whether a floating-point output of the module required grad, for every module that ran."""
    entered_without_grad: set[str] = field(default_factory=set)
    """Modules that ran while autograd recorded no gradients."""
    checkpoint_calls: list[CheckpointCall] = field(default_factory=list)
    """Every checkpoint call, in order."""


def why_cut(
    parameter: Tensor,
    owner: str,
    passage: ForwardRecord,
    used: str | None,
    used_without_grad: str | None,
    detached: list[tuple[str, Tensor]],
) -> tuple[Cut, str]:
    """Return the reason why a parameter received no gradient, and the path of the module that causes it.

    Args:
        parameter: The parameter.
        owner: The path of the module that holds it.
        passage: The record of the forward pass.
        used: The module that first used it while gradients were recorded, or None if none did.
        used_without_grad: The module that first used it while none were recorded, or None if none did.
        detached: (module path, tensor) of each detach of a tensor that required grad.
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
    """Return the modules around a parameter that did not run, innermost first. Lists whose members ran are excluded."""
    silent = list(itertools.takewhile(lambda path: path not in passage.gives_grad, around))
    while silent and any(path.startswith(f"{silent[-1]}.") for path in passage.gives_grad):
        silent.pop()
    return silent


def _ancestors(path: str) -> list[str]:
    """Return a path and the paths of its parents, innermost first, without the model itself."""
    found = []
    while path:
        found.append(path)
        path = path.rpartition(".")[0]
    return found


def _depends_on(tensor: Tensor, parameter: Tensor) -> bool:
    """Return whether the graph of a tensor leads back to a parameter."""
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
