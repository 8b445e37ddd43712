"""Rule KB571: unfit-call."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from kbitlint.facts.guards import chooses_by_version, imports_package
from kbitlint.rule import Meta, Rule
from kbitlint.violation import Consequence, Fix, Safety, Severity, Surface, Violation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kbitlint.context import TrainingContext
    from kbitlint.facts.object_faults import ObjectFault
    from kbitlint.facts.source import SourceFacts


class UnfitCall(Rule):
    """A method or function of a library is called with arguments that it does not take.

    ## What it does

    Compares the arguments of calls of methods and functions with their parameters, as the released packages have them. The
    class of the object is certain. KB543 does so for constructors of transformers, TRL and PEFT. A warning if the call drops
    the argument in silence, as a tokenizer does, or if only newer versions refuse it and the script declares none.

    ## Why is this bad?

    The call raises a TypeError; `generate` raises a ValueError. An argument that is dropped does nothing.

    ## Example

    `trainer.train(resume=True)`, `dataset.train_test_split(test_ratio=0.1)`, `tokenizer(text, max_len=512)`.

    ## Fix

    Use the name that the function has.

    ## Fix safety

    Display only.

    ## References

    - https://github.com/huggingface/transformers/issues/24128
    """

    meta: ClassVar[Meta] = Meta(
        code="KB571",
        slug="unfit-call",
        severity=Severity.ERROR,
        consequence=Consequence.FAILS,
        since="0.2.0",
    )

    def check_source(self, source: SourceFacts, context: TrainingContext) -> Iterator[Violation]:
        """Yield one violation for each argument that a call does not take, or lacks."""
        faults = [fault for fault in source.object_faults if fault.kind in ("keyword", "required", "ignored")]
        if not faults or imports_package(source.text, "unsloth"):
            return
        for fault in faults:
            if not (fault.version and chooses_by_version(source.text)):
                yield self._report(source, fault)

    def _report(self, source: SourceFacts, fault: ObjectFault) -> Violation:
        dropped = fault.kind == "ignored"
        since = f" since {fault.version}" if fault.version else ""
        messages = {
            "keyword": f"{fault.owner} takes no {fault.name}{since}: {fault.detail}",
            "required": f"{fault.owner} needs {fault.name}: {fault.detail}",
            "ignored": f"{fault.owner} drops {fault.name}, which it does not know",
        }
        outdated = bool(fault.version)
        return self.violation(
            messages[fault.kind],
            source.at_line(fault.line, fault.name),
            surface=Surface.SOURCE,
            severity=Severity.WARNING if dropped or outdated else Severity.ERROR,
            consequence=Consequence.OUTDATED if outdated else Consequence.TRAINS_WRONG if dropped else None,
            evidence={"callee": fault.owner, "argument": fault.name, "meant": fault.meant or None},
            fix=Fix(f"pass {fault.meant}" if fault.meant else "pass what it takes", Safety.DISPLAY),
        )
