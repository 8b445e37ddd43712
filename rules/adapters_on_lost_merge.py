"""Rule KB650: adapters-on-lost-merge."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from kbitlint.facts.source import Action
from kbitlint.rule import Meta, Rule
from kbitlint.violation import Consequence, Fix, Safety, Severity, Surface, Violation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kbitlint.context import TrainingContext
    from kbitlint.facts.reloads import Reload
    from kbitlint.facts.source import SourceFacts


class AdaptersOnLostMerge(Rule):
    """Adapters that were trained on a merged model are loaded on the base without the merge.

    ## What it does

    Reports a load of adapters on a checkpoint, if the same script merged other adapters into it before it trained and saved
    these. The load is not reported if the script merges there too, or loads the saved merge.

    ## Why is this bad?

    The second adapters only hold the difference to the merged weights. On the plain base, all that the first adapters had
    learned is missing. Nothing fails: the names and shapes are the same.

    ## Example

    Training by preferences on `PeftModel.from_pretrained(base, "sft").merge_and_unload()`, and later
    `PeftModel.from_pretrained(base, "dpo")`.

    ## Fix

    Merge the first adapters at the load too. Or save the merged model in 16 bits, and train and load on that checkpoint. Or
    keep training the first adapters, with `is_trainable=True` and without a merge.

    ## Fix safety

    Display only: which of the three is wanted is not in the file.

    ## References

    - https://github.com/unslothai/unsloth/issues/527
    - https://huggingface.co/docs/trl/dpo_trainer
    """

    meta: ClassVar[Meta] = Meta(
        code="KB650",
        slug="adapters-on-lost-merge",
        severity=Severity.ERROR,
        consequence=Consequence.TRAINS_WRONG,
        since="0.1.0",
    )

    def check_source(self, source: SourceFacts, context: TrainingContext) -> Iterator[Violation]:
        """Yield one violation for each load of such adapters without the merge."""
        if not any(step.action is Action.MERGE for path in source.paths for step in path.steps):
            return
        from kbitlint.facts.reloads import reloads  # few scripts merge adapters

        for reload in reloads(source):
            line = _merged_before_training(reload)
            if line and not any(step.action is Action.MERGE for step in reload.loaded):
                yield self.violation(
                    "the adapters were trained on a merged model, and are loaded on the base without that merge",
                    source.at(reload.load),
                    surface=Surface.SOURCE,
                    evidence={"merged_at": line},
                    fix=Fix("merge the first adapters here too, before this call", Safety.DISPLAY),
                )


def _merged_before_training(reload: Reload) -> int:
    """Return the line of a merge into the base, after which the saved adapters were attached; 0 if there is none."""
    merged = 0
    for step in reload.saved:
        if step.action is Action.MERGE and step.call.callee == "merge_and_unload":
            merged = step.call.span.line
        elif step.action is Action.ATTACH and merged:
            return merged
    return 0
