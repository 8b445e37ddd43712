"""Rule KB583: folder-of-something-else."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from kbitlint.rule import Meta, Rule
from kbitlint.upstream.data_contracts import CONTRACTS
from kbitlint.violation import Consequence, Fix, Safety, Severity, Surface, Violation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kbitlint.context import TrainingContext
    from kbitlint.facts.source import SourceFacts


class FolderOfSomethingElse(Rule):
    """An adapter, tokenizer or model is asked for where the script has put something else.

    ## What it does

    Knows the names of a model's adapters and what the script saves in each folder. Reports an adapter that is asked for by a
    name that none has, a load of an adapter from the folder of a merged model, a load of a
    tokenizer from a folder in which only a model was saved, a whole model that `torch.load` refuses, and adapters of different
    ranks that are combined by a way that takes one.

    ## Why is this bad?

    The load raises at the end of the script, after the training.

    ## Example

    `model.merge_and_unload().save_pretrained("merged")`, then `PeftModel.from_pretrained(base, "merged")`.

    ## Fix

    The message names the change.

    ## Fix safety

    Display only: the folder or the name has to change.

    ## References

    - https://github.com/huggingface/transformers/issues/28531
    - https://github.com/huggingface/peft/issues/1574
    - `peft/peft_model.py`, `save_pretrained`, `set_adapter`
    """

    meta: ClassVar[Meta] = Meta(
        code="KB583",
        slug="folder-of-something-else",
        severity=Severity.ERROR,
        consequence=Consequence.FAILS,
        since="0.2.0",
    )

    def check_source(self, source: SourceFacts, context: TrainingContext) -> Iterator[Violation]:
        """Yield one violation for each name or folder that holds something else."""
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
