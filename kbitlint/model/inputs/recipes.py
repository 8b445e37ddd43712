"""Recipes of inputs: what a forward read of an argument that no documentation describes, and values made of it.

A recipe is a tree. Its leaves are tensors and numbers, and its holders are tuples, lists, dictionaries and objects. Each part
has a way to it: ``batch.text.ids`` and ``batch.0``.
"""

from __future__ import annotations

import types
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from kbitlint.lazy_dataclass import dataclass

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

Shape = tuple[int, ...]
#: The kinds of holders.
TUPLE, LIST, MAPPING, RECORD = "tuple", "list", "mapping", "record"


@dataclass(frozen=True, slots=True)
class Leaf:
    """A tensor."""

    kind: str
    """``float``, ``long`` or ``bool``."""
    shape: Shape
    below: int | None = None
    """The exclusive upper bound of integers. None if no code bounds them."""


@dataclass(frozen=True, slots=True)
class Number:
    """A number of Python's."""

    value: int


@dataclass(frozen=True, slots=True)
class Holder:
    """A tuple, list, dictionary or object of further inputs."""

    kind: str
    items: tuple[tuple[str, Recipe], ...]


Recipe = Leaf | Number | Holder


class Fields(dict[str, Any]):
    """A dictionary whose entries are attributes too, as batches of tokenizers have them."""

    def __getattr__(self, name: str) -> Any:
        """Return the entry of a name."""
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None


class Items(list[Any]):
    """A list of inputs, such as images of several sizes. A plain list holds targets."""


def leaves_of(path: str, recipe: Recipe) -> Iterator[tuple[str, Leaf]]:
    """Yield each tensor of a recipe under the way to it."""
    if isinstance(recipe, Leaf):
        yield path, recipe
    elif isinstance(recipe, Holder):
        for name, item in recipe.items:
            yield from leaves_of(f"{path}.{name}", item)


def value_of(path: str, recipe: Recipe, dtype: torch.dtype) -> Any:
    """Return a value made of a recipe.

    Args:
        path: The way to it. Its last name tells what integers mean.
        recipe: The recipe.
        dtype: The dtype of floating-point tensors.
    """
    if isinstance(recipe, Leaf):
        return filled(path, recipe, dtype)
    if isinstance(recipe, Number):
        return recipe.value
    made = {name: value_of(f"{path}.{name}", item, dtype) for name, item in recipe.items}
    if recipe.kind == MAPPING:
        return Fields(made)
    if recipe.kind == RECORD:
        return types.SimpleNamespace(**made)
    return tuple(made.values()) if recipe.kind == TUPLE else Items(made.values())


def filled(path: str, leaf: Leaf, dtype: torch.dtype) -> Tensor:
    """Return a tensor for a leaf. Masks are ones, lengths the largest there is, ends of packed sequences rise."""
    name = path.rpartition(".")[2]
    if leaf.kind == "bool":
        return torch.ones(leaf.shape, dtype=torch.bool)
    if leaf.kind == "float":
        return torch.ones(leaf.shape, dtype=dtype) if "mask" in name else torch.randn(leaf.shape, dtype=dtype)
    if "mask" in name:
        return torch.ones(leaf.shape, dtype=torch.long)
    if name.startswith("cu_"):  # the ends of sequences that lie one behind the other
        return torch.linspace(0, leaf.below or 16, leaf.shape[0]).to(torch.int32)
    if "len" in name or "dur" in name:
        return torch.full(leaf.shape, leaf.below or 2, dtype=torch.long)
    steps = torch.arange(leaf.shape[-1] if leaf.shape else 1).remainder(max(leaf.below or 2, 1))
    return (steps if leaf.shape else steps[0]).expand(leaf.shape).clone()


def with_changes(path: str, recipe: Recipe, shapes: Mapping[str, Shape], kinds: Mapping[str, str]) -> Recipe:
    """Return a recipe whose leaves have the shapes and dtypes of a plan."""
    if isinstance(recipe, Leaf):
        kind = kinds.get(path, recipe.kind)
        return Leaf(kind if kind in ("float", "long", "bool") else recipe.kind, shapes.get(path, recipe.shape), recipe.below)
    if isinstance(recipe, Number):
        return recipe
    return Holder(
        recipe.kind, tuple((name, with_changes(f"{path}.{name}", item, shapes, kinds)) for name, item in recipe.items)
    )
