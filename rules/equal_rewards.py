"""Rule KB732: equal-rewards."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from kbitlint.rule import Meta, Rule
from kbitlint.upstream.data_contracts import CONTRACTS
from kbitlint.violation import Consequence, Fix, Safety, Severity, Surface, Violation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kbitlint.context import TrainingContext
    from kbitlint.facts.source import SourceFacts


class EqualRewards(Rule):
    """Rewards that are the same for every completion, so that a training by groups learns nothing.

    ## What it does

    Reports a GRPO or RLOO trainer all of whose reward functions certainly return the same number for each completion, such as
    `[1.0] * len(completions)`.

    ## Why is this bad?

    The advantage of a completion is its reward less the mean reward of its group. Equal rewards make every advantage 0, and
    so the gradient. The run takes its hours and leaves the adapters as they were. With `beta` above 0 only the distance to the
    reference counts.

    ## Example

    `def reward(completions, **kwargs): return [1.0 for _ in completions]`.

    ## Fix

    Let the reward depend on the completion.

    ## Fix safety

    Display only: the meaning of the reward is not known.

    ## References

    - https://huggingface.co/docs/trl/grpo_trainer
    """

    meta: ClassVar[Meta] = Meta(
        code="KB732",
        slug="equal-rewards",
        severity=Severity.WARNING,
        consequence=Consequence.TRAINS_WRONG,
        since="0.2.0",
    )

    def check_source(self, source: SourceFacts, context: TrainingContext) -> Iterator[Violation]:
        """Yield one violation for each trainer whose rewards tell nothing."""
        for use in source.data_uses:
            row = CONTRACTS[use.kind]
            if row.code == self.meta.code and row.holds_for(source.versions):
                yield self.violation(
                    row.message,
                    source.at_line(use.line),
                    surface=Surface.SOURCE,
                    evidence={"relation": use.kind},
                    fix=Fix(row.fix, Safety.DISPLAY),
                )
