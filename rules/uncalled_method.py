"""Rule KB587: uncalled-method."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from kbitlint.facts.values import Span
from kbitlint.rule import Meta, Rule
from kbitlint.violation import Consequence, Fix, Safety, Severity, Surface, Violation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kbitlint.context import TrainingContext
    from kbitlint.facts.object_faults import ObjectFault
    from kbitlint.facts.source import SourceFacts

#: methods without which nothing trains, or nothing is left of it
_NEEDED = frozenset(("backward", "step", "train", "zero_grad", "save_pretrained", "save_model", "merge_and_unload"))


class UncalledMethod(Rule):
    """A statement names a method and does not call it.

    ## What it does

    Reports a statement that is the name of a method of a model, Trainer, optimizer, schedule or loss, without parentheses:
    `trainer.train`, `optimizer.step`, `loss.backward`, `model.gradient_checkpointing_enable`, `model.save_pretrained`. Also
    reports a method of a file or text that a call gets in place of its result: `json.loads(f.read)`.

    ## Why is this bad?

    Python looks the method up and throws it away. Nothing is said, and nothing is trained, stepped, enabled or saved. A
    function that takes a text raises a TypeError for the method.

    ## Example

    `optimizer.step`.

    ## Fix

    Call it: `optimizer.step()`.

    ## Fix safety

    Unsafe: what the script does changes.

    ## References

    - https://github.com/huggingface/transformers/issues/21381
    """

    meta: ClassVar[Meta] = Meta(
        code="KB587",
        slug="uncalled-method",
        severity=Severity.ERROR,
        consequence=Consequence.TRAINS_NOTHING,
        since="0.2.0",
    )

    def check_source(self, source: SourceFacts, context: TrainingContext) -> Iterator[Violation]:
        """Yield one violation for each method that is named and not called."""
        for fault in source.object_faults:
            if fault.kind in ("uncalled", "passed"):
                yield self._report(source, fault)

    def _report(self, source: SourceFacts, fault: ObjectFault) -> Violation:
        passed = fault.kind == "passed"
        needed = fault.name in _NEEDED and not (fault.name == "train" and not fault.owner.endswith("Trainer"))
        at = source.text.find(fault.detail, fault.offset)
        edits = source.replace(Span(at, at + len(fault.detail), fault.line), f"{fault.detail}()") if at >= 0 else ()
        return self.violation(
            f"{fault.detail} is named and not called, so {'what takes its result raises' if passed else 'it does nothing'}",
            source.at_line(fault.line, fault.name),
            surface=Surface.SOURCE,
            severity=None if needed or passed else Severity.WARNING,
            consequence=Consequence.FAILS if passed else None if needed else Consequence.TRAINS_WRONG,
            evidence={"method": fault.name},
            fix=Fix("call it", Safety.UNSAFE if edits else Safety.DISPLAY, edits),
        )
