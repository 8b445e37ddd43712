"""Rule KB563: removed-attribute."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from kbitlint.facts.guards import chooses_by_version, is_guarded
from kbitlint.rule import Meta, Rule
from kbitlint.upstream.removed_attributes import removed_attribute
from kbitlint.violation import Consequence, Fix, Safety, Severity, Surface, Violation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kbitlint.context import TrainingContext
    from kbitlint.facts.source import SourceFacts

#: packages that set attributes of their own on the objects of transformers
_PATCHING = ("unsloth", "swift", "layoutlm", "markuplm", "tapas")


class RemovedAttribute(Rule):
    """An attribute of a Trainer, of its arguments or of a tokenizer that the library has removed.

    ## What it does

    Reports the read of an attribute of a Trainer, of training arguments or of a tokenizer, where the version of the library
    that is modelled has none of that name. The class of the object is certain: each assignment of the name in its function
    makes such an object. Files that choose by version, ask `hasattr`, or set an attribute of that name are left out.

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
        if not source.attribute_uses or any(word in source.text.lower() for word in _PATCHING):
            return
        for use in source.attribute_uses:
            found = removed_attribute(use.owner, use.name, source.versions)
            if found is None or is_guarded(source.text, use.offset, ("AttributeError", "Exception")):
                continue
            if chooses_by_version(source.text) or "except:" in source.text:
                return
            since, successor = found
            owner = use.owner.rpartition(".")[2]
            yield self.violation(
                f"the object of {owner} has no attribute {use.name} since {since}: an AttributeError",
                source.at_line(use.line, use.name),
                surface=Surface.SOURCE,
                evidence={"class": use.owner, "attribute": use.name, "replaced_by": successor or None},
                fix=Fix(f"use {successor}" if successor else "leave it out", Safety.DISPLAY),
            )
