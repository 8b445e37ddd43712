"""Rule KB573: unfit-object."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from kbitlint.rule import Meta, Rule
from kbitlint.violation import Consequence, Fix, Safety, Severity, Surface, Violation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kbitlint.context import TrainingContext
    from kbitlint.facts.object_faults import ObjectFault
    from kbitlint.facts.source import SourceFacts


class UnfitObject(Rule):
    """A function, trainer or model is given an object of a class that it cannot use.

    ## What it does

    Follows which class each object has, and compares the arguments of trainers, of PEFT's functions and of models with what
    they can use: a dict for training arguments, one optimizer for a pair, a class for a collator, a BatchEncoding for ids,
    the arguments of another trainer. A warning for arguments of transformers that trainers of TRL took before 0.13.

    ## Why is this bad?

    The call raises, mostly an AttributeError or a TypeError from deep inside of the library.

    ## Example

    `Trainer(model, args, optimizers=optimizer)`, `get_peft_model(lora_config, model)`, `model.generate(tokenizer(text))`.

    ## Fix

    Pass what the parameter takes.

    ## Fix safety

    Display only.

    ## References

    - https://github.com/huggingface/transformers/issues/24359
    """

    meta: ClassVar[Meta] = Meta(
        code="KB573",
        slug="unfit-object",
        severity=Severity.ERROR,
        consequence=Consequence.FAILS,
        since="0.2.0",
    )

    def check_source(self, source: SourceFacts, context: TrainingContext) -> Iterator[Violation]:
        """Yield one violation for each object that cannot be used in its place."""
        for fault in source.object_faults:
            if fault.kind == "class":
                yield self._report(source, fault)

    def _report(self, source: SourceFacts, fault: ObjectFault) -> Violation:
        return self.violation(
            f"{fault.name} of {fault.owner} {fault.detail}" + (f" since {fault.version}" if fault.version else ""),
            source.at_line(fault.line, fault.name),
            surface=Surface.SOURCE,
            severity=Severity.WARNING if fault.version else None,
            consequence=Consequence.OUTDATED if fault.version else None,
            evidence={"callee": fault.owner, "argument": fault.name},
            fix=Fix("pass what the parameter takes", Safety.DISPLAY),
        )
