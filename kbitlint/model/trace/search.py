"""The search of all objects that a model holds. ``Rebinding`` decides what becomes of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from kbitlint.errors import KbitlintError
from kbitlint.model.trace.references import is_callable, referents
from kbitlint.model.trace.shells import has_end, is_iterator

if TYPE_CHECKING:
    from collections.abc import Callable

#: The most objects below a model's functions that are searched. More of them belong to a whole program, not to a model.
MAX_SCANNED = 10**6


class TooMuchError(KbitlintError):
    """The functions of a model lead to more objects than are searched."""


def search(
    model: nn.Module, enter: Callable[[Tensor | None], None], leading: set[int]
) -> tuple[list[Any], list[Tensor], dict[int, list[int]]]:
    """Search all objects that a model holds, and add the ids of its modules to ``leading``.

    Args:
        model: The model.
        enter: Receives each parameter and buffer; None for one that a module leaves empty.
        leading: Ids of objects that lead to the model.

    Returns:
        Callables with the objects below them; tensors that other objects than modules hold; and the ids of all holders, by
        the id of the held object.

    Raises:
        TooMuchError: The functions lead to more than ``MAX_SCANNED`` objects.
    """
    below: list[Any] = []
    tensors: list[Tensor] = []
    holders: dict[int, list[int]] = {}
    todo: list[tuple[Any, bool]] = [(model, False)]
    seen: set[int] = set()
    while todo:
        value, under = todo.pop()
        if id(value) in seen:
            continue
        seen.add(id(value))
        if isinstance(value, Tensor):
            tensors.append(value)
            if isinstance(value, nn.Parameter):
                enter(value)
            continue
        if isinstance(value, nn.Module):
            under = False  # a module is copied with all that it holds
            leading.add(id(value))
            for tensor in (*value._parameters.values(), *value._buffers.values()):  # noqa: SLF001  # tensors of the module alone, without those of its children
                enter(tensor)
        elif under or is_callable(value) or is_iterator(value) or has_end(value):
            under = under or is_callable(value)
            below.append(value)
            if len(below) > MAX_SCANNED:
                raise TooMuchError(f"its functions lead to more than {MAX_SCANNED:,} objects")
        for held in referents(value):
            holders.setdefault(id(held), []).append(id(value))
            todo.append((held, under))
    return below, tensors, holders
