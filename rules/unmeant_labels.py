"""Rule KB730: unmeant-labels."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from kbitlint.rule import Meta, Rule
from kbitlint.upstream.data_contracts import CONTRACTS
from kbitlint.violation import Consequence, Fix, Safety, Severity, Surface, Violation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kbitlint.context import TrainingContext
    from kbitlint.facts.source import SourceFacts


class UnmeantLabels(Rule):
    """Labels with which the model learns something else than the text.

    ## What it does

    Reports labels that a script shifts before the model shifts them again, and labels that are a copy of tokens padded to a
    fixed length, where nothing sets the padding to -100. Also reports a prompt that is masked by the number of its characters,
    and a prompt mask that falls on padding, where the tokens are padded on the left.

    ## Why is this bad?

    The loss falls all the same. With shifted labels the model learns to skip every second token. With padding among the
    labels most of the loss is about padding.

    ## Example

    `{"input_ids": window[:-1], "labels": window[1:]}` for a model of transformers.

    ## Fix

    Let the labels be the input ids, with -100 for padding.

    ## Fix safety

    Display only: the cause is in the data.

    ## References

    - https://github.com/huggingface/transformers/issues/22794
    - https://github.com/huggingface/trl/issues/1385
    """

    meta: ClassVar[Meta] = Meta(
        code="KB730",
        slug="unmeant-labels",
        severity=Severity.WARNING,
        consequence=Consequence.TRAINS_WRONG,
        since="0.2.0",
    )

    def check_source(self, source: SourceFacts, context: TrainingContext) -> Iterator[Violation]:
        """Yield one violation for each function that makes such labels."""
        for use in source.data_uses:
            row = CONTRACTS[use.kind]
            if row.learns and not row.code and row.holds_for(source.versions):
                yield self.violation(
                    row.message,
                    source.at_line(use.line, "labels"),
                    surface=Surface.SOURCE,
                    evidence={"relation": use.kind},
                    fix=Fix(row.fix, Safety.DISPLAY),
                )
