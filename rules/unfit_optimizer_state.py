"""Rule KB330: unfit-optimizer-state."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from kbitlint.rule import Meta, Rule
from kbitlint.violation import Consequence, Fix, Location, Safety, Severity, Surface, Violation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kbitlint.context import TrainingContext
    from kbitlint.facts.ranks import RanksFacts


class UnfitOptimizerState(Rule):
    """A parameter that its optimizer cannot step: averages that do not fit it, or a sparse gradient.

    ## What it does

    Compares the averages that a live optimizer keeps (`exp_avg`, `exp_avg_sq`, `momentum_buffer`) with their parameters:
    the shape, and whether all values are finite. Reports embeddings with `sparse=True` under an optimizer of torch that
    refuses sparse gradients.

    ## Why is this bad?

    Averages are stored by the number of a parameter in its group. A state that was saved with other adapters or another
    order gives each parameter those of a stranger. Where the shapes differ the next step raises. An average with NaN makes
    its parameter NaN in the next step, however good the gradient is. AdamW raises `does not support sparse gradients`.

    ## Example

    `optimizer.load_state_dict(...)` with the state of a run of another rank, or of a run that ended in NaN.

    ## Fix

    Start with a new optimizer, or load the state that was saved with these adapters before the NaN.

    ## Fix safety

    Display only: only the user knows which state belongs to the adapters.

    ## References

    - https://github.com/wochenlong/lora-scripts-next/pull/320
    """

    meta: ClassVar[Meta] = Meta(
        code="KB330",
        slug="unfit-optimizer-state",
        severity=Severity.ERROR,
        consequence=Consequence.FAILS,
        since="0.2.0",
    )

    def check_ranks(self, ranks: RanksFacts, context: TrainingContext) -> Iterator[Violation]:
        """Yield one violation for each such parameter."""
        for path, problem in ranks.optimizer.unfit if ranks.optimizer is not None else ():
            yield self.violation(
                f"the optimizer does not fit this parameter: {problem}",
                Location(path),
                surface=Surface.RANKS,
                consequence=Consequence.TRAINS_WRONG if "NaN" in problem else Consequence.FAILS,
                fix=Fix("start with a new optimizer", Safety.DISPLAY),
            )
