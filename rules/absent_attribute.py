"""Rule KB570: absent-attribute."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from kbitlint.rule import Meta, Rule
from kbitlint.violation import Consequence, Fix, Safety, Severity, Surface, Violation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kbitlint.context import TrainingContext
    from kbitlint.facts.object_faults import ObjectFault
    from kbitlint.facts.source import SourceFacts

#: packages that set attributes of their own on the objects of transformers
_PATCHING = ("unsloth import", "import unsloth", "swift", "layoutlm", "markuplm", "tapas", "lightning")


class AbsentAttribute(Rule):
    """An attribute or method that an object of a library does not have.

    ## What it does

    Follows which class the object of each name has, and compares what the script reads of it with the members of that class.
    These are recorded from the released packages. Objects whose own code adds attributes are left out, but for methods of
    other classes and misspelt names. So are attributes that the script sets, or names as a text, and places within a `try`.

    ## Why is this bad?

    The line raises an AttributeError, mostly after the model was loaded or the training has ended.

    ## Example

    `model.print_trainable_parameters()` before `get_peft_model`, or `trainer.save_pretrained(out)`.

    ## Fix

    Use the name that the class has.

    ## Fix safety

    Display only.

    ## References

    - https://github.com/huggingface/transformers/issues/31884
    """

    meta: ClassVar[Meta] = Meta(
        code="KB570",
        slug="absent-attribute",
        severity=Severity.ERROR,
        consequence=Consequence.FAILS,
        since="0.2.0",
    )

    def check_source(self, source: SourceFacts, context: TrainingContext) -> Iterator[Violation]:
        """Yield one violation for each read of an attribute that its object lacks."""
        faults = [fault for fault in source.object_faults if fault.kind == "attribute" and not fault.version]
        if not faults or any(word in source.text.lower() for word in _PATCHING):
            return
        for fault in faults:
            yield self._report(source, fault)

    def _report(self, source: SourceFacts, fault: ObjectFault) -> Violation:
        made = f", which {fault.detail} returns," if fault.detail and "." not in fault.owner else ""
        return self.violation(
            f"the object of {fault.owner.rpartition('.')[2]}{made} has no attribute {fault.name}: an AttributeError",
            source.at_line(fault.line, fault.name),
            surface=Surface.SOURCE,
            evidence={"class": fault.owner, "attribute": fault.name, "meant": fault.meant or None},
            fix=Fix(f"use {fault.meant}" if fault.meant else "use what the class has", Safety.DISPLAY),
        )
