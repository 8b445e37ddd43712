"""The sizes of an input that has no form yet, and how many values the code of a caller unpacks."""

from __future__ import annotations

import dis
import functools
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from torch import Tensor

    from kbitlint.model.inputs.input_nodes import Node


class Extent:
    """The sizes of a lazy input. They are promised before the input has a form, and unpacking tells how many it has."""

    def __init__(self, node: Node, settle: Callable[[], Tensor], *, known: bool) -> None:
        """Hold an input whose sizes are asked for.

        Args:
            node: The node of the input.
            settle: Returns its tensor, with its views.
            known: Whether the input has a form, or views that hide its own dimensions.
        """
        self.node, self.settle, self.known = node, settle, known

    def __iter__(self) -> Iterator[int]:
        """Yield the sizes, as many as the code unpacks."""
        count = unpacked()
        if not count or self.known:
            return iter(self.settle().shape)
        self.node.rank = count
        return iter([*map(self.node.promise, range(count - 1)), self.node.promise(-1 if count > 1 else 0)])

    def __getitem__(self, at: Any) -> Any:
        """Return a size, or several of them."""
        if self.known:
            return self.settle().shape[at]
        if isinstance(at, int):
            return self.node.promise(at)
        if isinstance(at, slice) and at.start is None and (at.stop or 0) > 0:
            return tuple(map(self.node.promise, range(at.stop)))
        if isinstance(at, slice) and at.stop is None and (at.start or 0) < 0:
            return tuple(map(self.node.promise, range(at.start, 0)))
        return self.settle().shape[at]

    def __len__(self) -> int:
        """Return the number of dimensions."""
        return len(self.settle().shape)

    def __getattr__(self, name: str) -> Any:
        """Return what a ``torch.Size`` has under this name."""
        return getattr(self.settle().shape, name)


def unpacked() -> int | None:
    """Return how many values the code that asks for an iterator unpacks. None if it loops."""
    frame = sys._getframe(2)  # noqa: SLF001  # the instruction tells, and nothing else does
    found = _instructions(frame.f_code).get(frame.f_lasti)
    return found[1] if found is not None and found[0] == "UNPACK_SEQUENCE" else None


@functools.lru_cache(maxsize=256)
def _instructions(code: Any) -> dict[int, tuple[str, int | None]]:
    return {one.offset: (one.opname, one.arg) for one in dis.get_instructions(code)}
