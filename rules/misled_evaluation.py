"""Rule KB582: misled-evaluation."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from kbitlint.rule import Meta, Rule
from kbitlint.upstream.data_contracts import CONTRACTS
from kbitlint.violation import Consequence, Fix, Safety, Severity, Surface, Violation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kbitlint.context import TrainingContext
    from kbitlint.facts.source import SourceFacts


class MisledEvaluation(Rule):
    """A metric, or the end of a text, that means something else than the script takes it for.

    ## What it does

    Reports metrics of a decoder that compare the prediction at a token with the label of the same token, metrics that take
    token ids for logits, and texts of a training that end with the beginning of an answer.

    ## Why is this bad?

    The figures are near zero or say nothing, and the best checkpoint is chosen by them. A text that ends with the beginning of
    an answer teaches the model to begin another one.

    ## Example

    `(predictions == labels).mean()` with the argmax of the logits of a decoder.

    ## Fix

    The message names the change.

    ## Fix safety

    Display only: the metric is part of the script.

    ## References

    - https://github.com/huggingface/trl/issues/893
    - https://github.com/huggingface/transformers/issues/15466
    - `transformers/loss/loss_utils.py`, `ForCausalLMLoss`
    """

    meta: ClassVar[Meta] = Meta(
        code="KB582",
        slug="misled-evaluation",
        severity=Severity.WARNING,
        consequence=Consequence.TRAINS_WRONG,
        since="0.2.0",
    )

    def check_source(self, source: SourceFacts, context: TrainingContext) -> Iterator[Violation]:
        """Yield one violation for each such metric or text."""
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
