"""Rule KB337: strayed-step."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from kbitlint.facts.ranks import UPHILL
from kbitlint.rule import Meta, Rule
from kbitlint.violation import Consequence, Fix, Location, Safety, Severity, Surface, Violation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kbitlint.context import TrainingContext
    from kbitlint.facts.ranks import RanksFacts


class StrayedStep(Rule):
    """An optimizer whose settings keep its steps from following the gradient.

    ## What it does

    Looks at the parameter groups of a live optimizer. Reports a learning rate that is infinite, a weight decay that takes a
    whole parameter or more away in each step of AdamW or SGD, a momentum with `dampening=1`, and as a warning `maximize=True`.

    ## Why is this bad?

    Each of them is accepted without a message, and gradients arrive. With `lr * weight_decay` of 1 or more, a step sets each
    parameter to zero or turns its sign. With `dampening=1`, the momentum keeps the first gradient and sees no other one.
    `maximize=True` lets the loss rise.

    ## Example

    `torch.optim.AdamW(parameters, lr=1e-3, weight_decay=2000)`, where a regularization of another program was meant.

    ## Fix

    Use values of the size that the optimizer has by default: `weight_decay=0.01`, `dampening=0`, `maximize=False`.

    ## Fix safety

    Display only: the values are the user's choice.

    ## References

    - https://github.com/pytorch/pytorch/blob/v2.9.1/torch/optim/sgd.py
    - https://github.com/pytorch/pytorch/blob/v2.9.1/torch/optim/adamw.py
    """

    meta: ClassVar[Meta] = Meta(
        code="KB337",
        slug="strayed-step",
        severity=Severity.ERROR,
        consequence=Consequence.TRAINS_WRONG,
        since="0.2.0",
    )

    def check_ranks(self, ranks: RanksFacts, context: TrainingContext) -> Iterator[Violation]:
        """Yield one violation for each such setting."""
        for problem in ranks.optimizer.astray if ranks.optimizer is not None else ():
            yield self.violation(
                problem,
                Location(),
                surface=Surface.RANKS,
                severity=Severity.WARNING if problem == UPHILL else Severity.ERROR,
                fix=Fix("use a value of the size that the optimizer has by default", Safety.DISPLAY),
            )
