"""What is known about the inputs of one run of a forward, before and after its code has given them a form."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from kbitlint.model.inputs import consumers
from kbitlint.model.inputs.interface import is_integer_name
from kbitlint.model.inputs.recipes import LIST, TUPLE, Holder, Leaf, Number, filled

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import torch
    from torch import Tensor

    from kbitlint.model.inputs.plan import Plan
    from kbitlint.model.inputs.recipes import Recipe

#: Items of a list, and parts with the same name inside each other, as trees have them.
ITEMS, _DEPTH = 2, 2
#: Dimensions of an input of which nothing else is known.
RANK = 2
#: The last dimension of an input that no layer has told, and the further ones.
_WIDTH, _EDGES = 8, (consumers.EDGE, consumers.EDGE)
#: Names that packed samples have beside them: the edges of graphs, and the ends of sequences.
_PACKED = re.compile(r"edge_index|adj_t|\bcu_")


class Session:
    """The lazy inputs of one run."""

    def __init__(
        self, plan: Plan, batch: int, steps: int, dtype: torch.dtype, entries: Mapping[str, Sequence[str]] | None = None
    ) -> None:
        self.plan, self.batch, self.steps, self.dtype = plan, batch, steps, dtype
        self.entries = entries or {}
        """The entries of inputs that code copies before it reads them, by path."""
        self.copied: list[str] = []
        """The paths of the inputs whose entries code has asked for all at once."""
        self.roots: dict[str, Node] = {}
        self.broken: dict[str, tuple[int, ...]] = {}
        """The shapes of inputs of which code has read other sizes before."""
        self.flat = False
        """Whether samples lie one behind the other, without a dimension of their own: nodes of graphs, packed sequences."""

    def input(self, path: str) -> Node:
        """Return the node of an argument."""
        self.see(path)
        self.roots[path] = Node(self, path)
        return self.roots[path]

    def see(self, path: str) -> None:
        """Receive the name of an input, which may tell that samples are packed."""
        self.flat = self.flat or bool(_PACKED.search(path))

    def several(self, path: str, count: int) -> list[Node]:
        """Return the nodes of ``*path``."""
        return self.input(path).parts(count, TUPLE)

    def recipes(self) -> dict[str, Recipe]:
        """Return what the run has found out about each argument."""
        return {name: node.recipe() for name, node in self.roots.items()}


class Node:
    """What is known about one lazy input."""

    def __init__(self, session: Session, path: str) -> None:
        self.session, self.path = session, path
        self.kind = "long" if is_integer_name(path.rpartition(".")[2]) else ""
        self.cast = ""
        """The kind that code has cast it to, or that its operators take."""
        self.rank: int | None = None
        self.promised: dict[int, int] = {}
        self.leaf: Leaf | None = None
        self.tensor: Tensor | None = None
        self.number: int | None = None
        self.holder = ""
        self.items: dict[str, Node] = {}

    def part(self, name: str, holder: str) -> Node:
        """Return a part, which is made when it is first asked for."""
        self.holder = holder if self.holder in ("", TUPLE, LIST) else self.holder
        if name not in self.items:
            self.session.see(name)
            self.items[name] = Node(self.session, f"{self.path}.{name}")
        return self.items[name]

    def parts(self, count: int, holder: str) -> list[Node]:
        """Return numbered parts. Parts of a tree end at a small depth."""
        names = [name for name in self.path.split(".") if not name.isdigit()]
        if holder == LIST and len(names) - len(set(names)) >= _DEPTH - 1:
            self.holder = LIST
            return []
        return [self.part(str(number), holder) for number in range(count)]

    def promise(self, at: int) -> int:
        """Return the size of a dimension before the input has a form. A plan may know it."""
        known = self.session.plan.shapes.get(self.path)
        if known is not None and -len(known) <= at < len(known):
            return known[at]
        usual = self._usual().shape if self.rank else (self.session.batch, self.session.steps, *_EDGES)
        size = usual[at] if -len(usual) <= at < len(usual) and (self.rank or at >= 0) else _WIDTH
        return self.promised.setdefault(at, size)

    def become(self, leaf: Leaf | None) -> Tensor:
        """Return the tensor of this input. It gets the form of a leaf, unless a plan or its use has given it another one."""
        if self.tensor is None:
            session = self.session
            found = leaf or self._usual()
            kind = session.plan.kinds.get(self.path) or self.cast or (found.kind if leaf else self.kind or found.kind)
            shape = session.plan.shapes.get(self.path) or self._ranked(found.shape)
            self.leaf = Leaf(kind, shape, found.below)
            if any(not -len(shape) <= at < len(shape) or shape[at] != size for at, size in self.promised.items()):
                session.broken[self.path] = shape
            self.tensor = filled(self.path, self.leaf, session.dtype)
            if self.tensor.is_floating_point():
                self.tensor = self.tensor.to("meta")
        return self.tensor

    def _usual(self) -> Leaf:
        name, steps = self.path.rpartition(".")[2], self.session.steps
        if name.startswith("cu_"):
            return Leaf("long", (3,), steps)
        if "len" in name and self.rank is None:
            return Leaf("long", (self.session.batch,), steps)
        sizes = (*(() if self.session.flat else (self.session.batch,)), steps, _WIDTH, *_EDGES)
        return Leaf(self.kind or "float", sizes[: self.rank or RANK])

    def _ranked(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return a shape with the number of dimensions that code has asked for."""
        rank = self.rank or len(shape)
        if rank > len(shape):
            return (*shape[:-1], *(4 for _ in range(rank - len(shape))), *shape[-1:])
        return (*shape[: rank - 1], shape[-1]) if rank < len(shape) and rank else shape

    def recipe(self) -> Recipe:
        """Return what the run has found out."""
        if self.leaf is not None:
            return self.leaf
        if self.holder:
            return Holder(self.holder, tuple((name, item.recipe()) for name, item in self.items.items()))
        return Leaf("long", ()) if self.number is None else Number(self.number)
