"""Rule KB331: overlapping-parameters."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from kbitlint.rule import Meta, Rule
from kbitlint.violation import Consequence, Fix, Location, Safety, Severity, Violation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kbitlint.context import TrainingContext
    from kbitlint.facts.model import ModelFacts


class OverlappingParameters(Rule):
    """A trainable parameter that shares its memory with another parameter, or with itself.

    ## What it does

    Compares the memory of all parameters of a live model. Reports trainable ones that overlap another parameter. Tied modules
    that hold one and the same parameter are left out. Reports trainable parameters whose elements lie on each other.

    ## Why is this bad?

    The optimizer updates memory. It changes both parameters with each step for one of them, and no attribute shows that
    they are tied. A saved and loaded model has two tensors again. A parameter that was expanded cannot be updated in place:
    torch raises `more than one element of the written-to tensor refers to a single memory location`.

    ## Example

    `lora_B.weight.data = other.lora_B.weight.data`, or `nn.Parameter(vector.expand(rows, -1))`.

    ## Fix

    Copy the values: `parameter.data.copy_(other.data)`, or `.expand(...).clone()`. Tie modules by assigning the parameter.

    ## Fix safety

    Display only: the user may have meant to tie the two.

    ## References

    - https://github.com/lucidrains/titans-pytorch/issues/64
    - https://github.com/monniert/dti-sprites/issues/2
    """

    meta: ClassVar[Meta] = Meta(
        code="KB331",
        slug="overlapping-parameters",
        severity=Severity.WARNING,
        consequence=Consequence.TRAINS_WRONG,
        since="0.2.0",
    )

    def check_model(self, model: ModelFacts, context: TrainingContext) -> Iterator[Violation]:
        """Yield one violation for each trainable parameter on shared memory."""
        for path, other in model.overlapping:
            itself = path == other
            yield self.violation(
                "its elements lie on each other, so that no optimizer can write them in place"
                if itself
                else f"it lies on the memory of {other}: each step for one of them changes both",
                Location(path),
                severity=Severity.ERROR if itself else Severity.WARNING,
                consequence=Consequence.FAILS if itself else Consequence.TRAINS_WRONG,
                fix=Fix("copy the values, or assign the same parameter to both modules", Safety.DISPLAY),
            )
