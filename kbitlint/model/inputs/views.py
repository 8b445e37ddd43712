"""Views of an input that is no tensor yet: the shape that it must have so that a view of it has another one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kbitlint.lazy_dataclass import dataclass

if TYPE_CHECKING:
    from torch import Tensor

Shape = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class View:
    """A method of a tensor, or an index, that only names other dimensions or some of the numbers."""

    name: str
    how: tuple[Any, ...]

    @property
    def is_plain(self) -> bool:
        """Return whether an index holds numbers, slices, new dimensions and the rest only."""
        keys = self.how[0] if isinstance(self.how[0], tuple) else (self.how[0],)
        return all(key is None or key is Ellipsis or isinstance(key, (int, slice)) for key in keys)


def seen_through(view: View, tensor: Tensor) -> Tensor:
    """Return a view of a tensor."""
    return tensor[view.how[0]] if view.name == "getitem" else getattr(tensor, view.name)(*view.how)


def before(view: View, shape: Shape | None, batch: int) -> Shape | None:
    """Return a shape of which a view has the given one. None if no shape is wanted, or none is known.

    Args:
        view: The view.
        shape: The shape that the view shall have.
        batch: Samples in a batch, of which an index takes one.
    """
    if shape is None:
        return None
    if view.name == "getitem":
        return _indexed(view.how[0], shape, batch)
    made, how = list(shape), view.how
    if view.name == "unsqueeze" and -len(made) <= how[0] < len(made):
        del made[how[0]]
    elif view.name == "squeeze" and how:
        made.insert(how[0] if how[0] >= 0 else len(made) + how[0] + 1, 1)
    elif view.name in ("transpose", "swapaxes", "t"):
        first, second = how or (0, 1)
        if max(first, second) >= len(made):  # the code names more dimensions than its consumer needs
            made[1:1] = [4] * (max(first, second) - len(made) + 1)
        made[first], made[second] = made[second], made[first]
    elif view.name == "permute":
        order = how[0] if isinstance(how[0], (list, tuple)) else how
        if len(order) != len(made):
            return None
        made = [made[order.index(axis)] for axis in range(len(order))]
    return tuple(made)


def _indexed(key: Any, shape: Shape, batch: int) -> Shape:
    keys = list(key) if isinstance(key, tuple) else [key]
    if Ellipsis in keys:
        at = keys.index(Ellipsis)
        used = sum(not isinstance(one, int) for one in keys) - 1
        keys[at : at + 1] = [slice(None)] * (len(shape) - used)
    rest, made = list(shape), list[int]()
    for one in keys:
        if isinstance(one, int):
            made.append(max(one + 1, -one, batch if not made else 4))
        elif one is None:
            rest = rest[1:]
        elif rest:
            made.append(_sliced(one, rest.pop(0)))
    return (*made, *rest)


def _sliced(key: slice, size: int) -> int:
    """Return the size of a dimension of which a slice has so many."""
    start = key.start or 0
    if key.stop is not None and key.stop < 0:
        return size - key.stop + max(start, 0)
    return size + start if start > 0 and key.stop is None else max(size, key.stop or 0, -start)
