"""Rule KB580: result-of-no-run."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from kbitlint.rule import Meta, Rule
from kbitlint.upstream.data_contracts import CONTRACTS
from kbitlint.violation import Consequence, Fix, Safety, Severity, Surface, Violation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kbitlint.context import TrainingContext
    from kbitlint.facts.source import SourceFacts


class ResultOfNoRun(Rule):
    """A Trainer is asked for something that its arguments leave out.

    ## What it does

    Follows each Trainer of a script to the calls of its methods. Reports an evaluation without data, a metric that is read and
    that no evaluation or training returns, a load from the best checkpoint of a run that chooses none, and a run that resumes
    from checkpoints that its own arguments never write.

    ## Why is this bad?

    The exception comes when the call runs, which is after hours of training for all but the last.

    ## Example

    `trainer.train()`, then `trainer.evaluate()["eval_accuracy"]` without `compute_metrics`.

    ## Fix

    The message names the change.

    ## Fix safety

    Display only: the script has to say which result it wants.

    ## References

    - https://github.com/huggingface/transformers/issues/33420
    - `transformers/trainer.py`, `get_eval_dataloader`, `_determine_best_metric` and `train`
    """

    meta: ClassVar[Meta] = Meta(
        code="KB580",
        slug="result-of-no-run",
        severity=Severity.ERROR,
        consequence=Consequence.FAILS,
        since="0.2.0",
    )

    def check_source(self, source: SourceFacts, context: TrainingContext) -> Iterator[Violation]:
        """Yield one violation for each result that no run has."""
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
