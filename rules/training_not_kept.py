"""Rule KB581: training-not-kept."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from kbitlint.rule import Meta, Rule
from kbitlint.upstream.data_contracts import CONTRACTS
from kbitlint.violation import Consequence, Fix, Safety, Severity, Surface, Violation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kbitlint.context import TrainingContext
    from kbitlint.facts.source import SourceFacts


class TrainingNotKept(Rule):
    """A run loses what an earlier one has learned, or what it learns itself.

    ## What it does

    Reports adapters that are saved before the training and not after it, a run that resumes without the state of its optimizer
    or ignores that it shall resume, and a state that an Accelerator loads before it has a model.

    ## Why is this bad?

    Nothing raises. The folder holds adapters without effect, or the run repeats the first steps with the rate of a later one.

    ## Example

    `model.save_pretrained("adapter")` above `trainer.train()`, with `save_strategy="no"`.

    ## Fix

    The message names the change.

    ## Fix safety

    Display only: the calls have to move.

    ## References

    - https://github.com/huggingface/transformers/issues/24354
    - `transformers/trainer.py`, `_save_checkpoint`; `accelerate/accelerator.py`, `load_state`
    """

    meta: ClassVar[Meta] = Meta(
        code="KB581",
        slug="training-not-kept",
        severity=Severity.WARNING,
        consequence=Consequence.TRAINS_WRONG,
        since="0.2.0",
    )

    def check_source(self, source: SourceFacts, context: TrainingContext) -> Iterator[Violation]:
        """Yield one violation for each place that loses what was learned."""
        for use in source.data_uses:
            row = CONTRACTS[use.kind]
            if row.code == self.meta.code and row.holds_for(source.versions):
                yield self.violation(
                    row.message.format(use.detail),
                    source.at_line(use.line),
                    surface=Surface.SOURCE,
                    evidence={"relation": use.kind},
                    fix=Fix(row.fix, Safety.DISPLAY),
                )
