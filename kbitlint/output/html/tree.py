"""The module tree of the page, with equal subtrees folded.

Two modules are equal if their class, parameters, checkpointing, violations and children are. Each kind of subtree is
one numbered node, so a model of 60,000 modules takes a few dozen nodes.
"""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from dataclasses import field
from typing import TYPE_CHECKING

from kbitlint.lazy_dataclass import dataclass
from kbitlint.module_paths import spans

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from kbitlint.result import ModuleOutline
    from kbitlint.violation import Severity


#: Names of children of a ModuleList.
_NUMBER = re.compile(r"0|[1-9][0-9]{0,8}")


@dataclass(frozen=True, slots=True)
class Child:
    """One row below a module: a child, or all its equal numbered children."""

    label: str
    """The name, or the numbers: ``0–2, 4``."""
    spans: tuple[tuple[int, int], ...]
    """The (first, last) of each run of numbers; empty for a name."""
    count: int
    """The number of children."""
    node: int
    """The number of the node in ``Tree.nodes``."""


@dataclass(frozen=True, slots=True)
class Node:
    """One kind of subtree."""

    module: ModuleOutline
    """The root, without its path: the paths of equal subtrees differ."""
    causes: tuple[int, ...]
    """The numbers of the causes that name the root."""
    children: tuple[Child, ...]
    modules: int
    """The number of modules in the subtree."""
    numel: int
    """The number of elements of its parameters, before packing."""
    trainable: int
    """The number of those that require gradients."""
    stored: tuple[tuple[str, int], ...]
    """The (storage, bytes) pairs of the subtree, most bytes first."""
    checkpoints: tuple[tuple[str, int], ...]
    """The (way of checkpointing, number of modules) pairs of the subtree."""
    severities: tuple[tuple[str, int], ...]
    """The (severity, number of modules with a violation of that severity) pairs of the subtree."""

    @property
    def nbytes(self) -> int:
        """The bytes of the subtree's parameters."""
        return sum(count for _, count in self.stored)


@dataclass(frozen=True, slots=True)
class Tree:
    """A folded tree: nodes by number, with children before their parents."""

    nodes: tuple[Node, ...]

    @property
    def root(self) -> Node:
        """The node of the whole model."""
        return self.nodes[-1]


@dataclass(slots=True)
class _Branch:
    module: ModuleOutline
    children: dict[str, _Branch] = field(default_factory=dict)


def tree_of(outline: Sequence[ModuleOutline], found: Mapping[str, Iterable[int]], severities: Sequence[Severity]) -> Tree:
    """Return the folded tree of a model's modules.

    Args:
        outline: The modules, with parents before their children.
        found: The numbers of the causes at each path of a module or parameter.
        severities: The severity of each cause, by number.
    """
    root = _Branch(outline[0])
    branches = {outline[0].path: root}
    for module in outline[1:]:
        branches[module.path] = branch = _Branch(module)
        parent, name = _parent(module.path, branches)
        branches[parent].children[name] = branch
    causes: dict[str, set[int]] = {}
    for path, numbers in found.items():
        nearest = path if path in branches else _parent(path, branches)[0]
        causes.setdefault(nearest, set()).update(numbers)
    return _Folding(causes, severities).fold(root)


def _parent(path: str, known: Mapping[str, object]) -> tuple[str, str]:
    """Return (the nearest known path above, the name below it)."""
    head, _, name = path.rpartition(".")
    while head and head not in known:
        head, _, step = head.rpartition(".")
        name = f"{step}.{name}"
    return head, name


class _Folding:
    def __init__(self, causes: Mapping[str, set[int]], severities: Sequence[Severity]) -> None:
        self.causes = causes
        self.severities = severities
        self.known: dict[object, int] = {}
        self.nodes: list[Node] = []

    def fold(self, root: _Branch) -> Tree:
        numbers: dict[str, int] = {}
        order, stack = [], [root]
        while stack:  # no recursion: a hostile model may be nested deeper than Python's limit
            branch = stack.pop()
            order.append(branch)
            stack += branch.children.values()
        for branch in reversed(order):
            children = _alike([(name, numbers[child.module.path]) for name, child in branch.children.items()])
            numbers[branch.module.path] = self._number(branch.module, children)
        return Tree(tuple(self.nodes))

    def _number(self, module: ModuleOutline, children: tuple[Child, ...]) -> int:
        causes = tuple(sorted(self.causes.get(module.path, ())))
        module = dataclasses.replace(module, path="")
        key = (module, causes, children)
        if key not in self.known:
            self.known[key] = len(self.nodes)
            self.nodes.append(self._node(module, causes, children))
        return self.known[key]

    def _node(self, module: ModuleOutline, causes: tuple[int, ...], children: tuple[Child, ...]) -> Node:
        stored, checkpoints = Counter(dict(module.stored)), Counter({module.checkpoints: 1} if module.checkpoints else {})
        found = Counter({self.severities[cause].value: 1 for cause in causes})
        modules, numel, trainable = 1, module.numel, module.trainable
        for child in children:
            below, count = self.nodes[child.node], child.count
            modules += count * below.modules
            numel += count * below.numel
            trainable += count * below.trainable
            for into, pairs in ((stored, below.stored), (checkpoints, below.checkpoints), (found, below.severities)):
                into.update({name: count * number for name, number in pairs})
        return Node(
            module,
            causes,
            children,
            modules,
            numel,
            trainable,
            tuple(sorted(stored.items(), key=lambda pair: (-pair[1], pair[0]))),
            tuple(sorted(checkpoints.items())),
            tuple(sorted(found.items())),
        )


def _alike(children: Iterable[tuple[str, int]]) -> tuple[Child, ...]:
    """Return one row for each kind of numbered child and each named child, in order of first appearance."""
    rows: dict[object, tuple[list[str], int]] = {}
    for name, node in children:
        rows.setdefault(node if _NUMBER.fullmatch(name) else name, ([], node))[0].append(name)
    return tuple(
        _row([int(name) for name in names], node) if isinstance(key, int) else Child(names[0], (), 1, node)
        for key, (names, node) in rows.items()
    )


def _row(numbers: list[int], node: int) -> Child:
    runs = spans(numbers)
    label = ", ".join(str(first) if first == last else f"{first}–{last}" for first, last in runs)
    return Child(label, tuple(runs), len(numbers), node)
