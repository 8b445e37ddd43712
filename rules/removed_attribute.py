"""Rule KB563: removed-attribute."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from kbitlint.facts.guards import chooses_by_version
from kbitlint.rule import Meta, Rule
from kbitlint.violation import Consequence, Fix, Safety, Severity, Surface, Violation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kbitlint.context import TrainingContext
    from kbitlint.facts.source import SourceFacts

#: packages that set attributes of their own on the objects of transformers
_PATCHING = ("unsloth import", "import unsloth", "swift", "layoutlm", "markuplm", "tapas")


class RemovedAttribute(Rule):
    """An attribute of a Trainer, of its arguments or of a tokenizer that the library has removed.

    ## What it does

    Reports the read of an attribute of a Trainer, of training arguments or of a tokenizer, where the version of the library
    that is modelled has none of that name. The class of the object is certain: it is followed from
    statement to statement. Files that choose by version, and places that ask `hasattr`, or set such an attribute, are left out.

    ## Why is this bad?

    The line raises an AttributeError. `trainer.tokenizer` is mostly read after the training, to save it: the run is
    trained to its end, and the adapter that the next line would save is lost.

    ## Example

    `trainer.tokenizer.save_pretrained(out)` with transformers 5.

    ## Fix

    Read what replaced it: `trainer.processing_class`.

    ## Fix safety

    Display only.

    ## References

    - https://github.com/huggingface/transformers/pull/32385
    - `transformers/trainer.py`, `Trainer.__init__`; `transformers/tokenization_utils_base.py`, `__getattr__`
    """

    meta: ClassVar[Meta] = Meta(
        code="KB563",
        slug="removed-attribute",
        severity=Severity.ERROR,
        consequence=Consequence.FAILS,
        since="0.2.0",
    )

    def check_source(self, source: SourceFacts, context: TrainingContext) -> Iterator[Violation]:
        """Yield one violation for each read of a removed attribute."""
        faults = [fault for fault in source.object_faults if fault.kind == "attribute" and fault.version]
        if not faults or any(word in source.text.lower() for word in _PATCHING) or chooses_by_version(source.text):
            return
        for fault in faults:
            owner = fault.owner.rpartition(".")[2]
            yield self.violation(
                f"the object of {owner} has no attribute {fault.name} since {fault.version}: an AttributeError",
                source.at_line(fault.line, fault.name),
                surface=Surface.SOURCE,
                evidence={"class": fault.owner, "attribute": fault.name, "replaced_by": fault.meant or None},
                fix=Fix(f"use {fault.meant}" if fault.meant else "leave it out", Safety.DISPLAY),
            )
