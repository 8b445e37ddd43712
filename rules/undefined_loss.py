"""Rule KB316: undefined-loss."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from kbitlint.rule import Meta, Rule
from kbitlint.violation import Consequence, Fix, Location, Safety, Severity, Surface, Violation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kbitlint.context import TrainingContext
    from kbitlint.facts.trace import TraceFacts


class UndefinedLoss(Rule):
    """A loss that is the mean of no elements, although every label of the batch counts.

    ## What it does

    Runs a training step without weights on a batch whose labels all count. Reports a loss that averages an empty tensor.
    Shapes and masks are computed for real, so the tensor is empty in training too.

    ## Why is this bad?

    The mean of no elements is `nan`. The gradients are zero or `nan`, and no parameter learns. The code between the batch and
    the loss has masked every label, or cut off every token.

    ## Example

    CPT of PEFT with a `cpt_tokens_type_mask` whose largest type is no multiple of 4: PEFT adds it to the types of the input,
    and counts the tokens whose type is a multiple of 4.

    ## Fix

    Look at what masks the labels between the batch and the loss. For CPT, end the type mask with an answer (4, 8, ...), or pass
    an `input_type_mask` that fits.

    ## Fix safety

    Display only: the cause is in code or in a setting.

    ## References

    - https://arxiv.org/abs/2410.17222
    """

    meta: ClassVar[Meta] = Meta(
        code="KB316",
        slug="undefined-loss",
        severity=Severity.ERROR,
        consequence=Consequence.TRAINS_NOTHING,
        since="0.2.0",
    )

    def check_trace(self, trace: TraceFacts, context: TrainingContext) -> Iterator[Violation]:
        """Yield at most one violation."""
        if trace.undefined_loss:
            yield self.violation(
                "the loss is nan: it is a mean of no elements",
                Location(""),
                surface=Surface.TRACE,
                evidence={"batch": list(trace.batch)},
                fix=Fix("look at what masks the labels between the batch and the loss", Safety.DISPLAY),
            )
