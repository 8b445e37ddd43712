"""A batch on which a forward failed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kbitlint.model.inputs.labels import label_names

if TYPE_CHECKING:
    from collections.abc import Mapping

    from kbitlint.model.inputs.dimensions import Dimensions
    from kbitlint.model.inputs.interface import Argument

Shape = tuple[int, ...]
_NUMBERS = ("float", "long")


class Batch:
    """A batch that failed: the arguments of the forward, and the shape of each tensor that was passed."""

    def __init__(
        self,
        arguments: Mapping[str, Argument],
        shapes: Mapping[str, Shape],
        dimensions: Dimensions,
        *,
        takes_any: bool = False,
        compared: frozenset[int] = frozenset(),
        documented: bool = True,
    ) -> None:
        self.arguments = arguments
        self.shapes = shapes
        self.dimensions = dimensions
        self.documented = documented
        """Whether the inputs have the form that a class documents. Otherwise the code of the forward has given it to them."""
        self.takes_any = takes_any
        """Whether the forward takes any keyword."""
        self.compared = compared
        """The numbers with which the forward compared integers, such as the token of an image."""

    @property
    def floats(self) -> list[str]:
        """The floating-point inputs except labels, highest rank first."""
        labels = label_names(self.arguments)
        found = [name for name in self.shapes if name not in labels and self.arguments[name].kind == "float"]
        return sorted(found, key=lambda name: -len(self.shapes[name]))

    @property
    def plain(self) -> list[str]:
        """The tensors that were passed without a documented shape."""
        return [name for name in self.shapes if self.arguments[name].shape is None and self.arguments[name].kind in _NUMBERS]

    @property
    def mappings(self) -> list[str]:
        """The arguments that are dictionaries."""
        return [name for name, argument in self.arguments.items() if argument.kind == "features"]

    @property
    def labels(self) -> frozenset[str]:
        """The labels that were passed."""
        return frozenset(label_names(self.arguments)) & self.shapes.keys()
