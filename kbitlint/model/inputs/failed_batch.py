"""A batch on which a forward failed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kbitlint.model.inputs.labels import label_names

if TYPE_CHECKING:
    from collections.abc import Mapping

    from kbitlint.model.inputs.dimensions import Dimensions
    from kbitlint.model.inputs.interface import Argument

Shape = tuple[int, ...]


class Batch:
    """A batch that failed: the arguments of the forward, and the shape of each tensor that was passed."""

    def __init__(self, arguments: Mapping[str, Argument], shapes: Mapping[str, Shape], dimensions: Dimensions) -> None:
        self.arguments = arguments
        self.shapes = shapes
        self.dimensions = dimensions

    @property
    def floats(self) -> list[str]:
        """The floating-point inputs except labels, highest rank first."""
        labels = label_names(self.arguments)
        found = [name for name in self.shapes if name not in labels and self.arguments[name].kind == "float"]
        return sorted(found, key=lambda name: -len(self.shapes[name]))

    @property
    def labels(self) -> frozenset[str]:
        """The labels that were passed."""
        return frozenset(label_names(self.arguments)) & self.shapes.keys()
