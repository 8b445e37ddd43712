"""Rule KB661: undefined-name."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from kbitlint.rule import Meta, Rule
from kbitlint.violation import Consequence, Fix, Safety, Severity, Surface, Violation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kbitlint.context import TrainingContext
    from kbitlint.facts.source import SourceFacts


class UndefinedName(Rule):
    """A call uses a name that nothing in the file binds.

    ## What it does

    In a script that imports from transformers, PEFT or TRL by name, reports classes and functions of these libraries that it
    calls and never imports, and names that it passes as `quantization_config` or `peft_config` and never assigns. Also modules
    that it uses and never imports, as `torch`, and objects that it never makes and whose attributes a config gets. Files with a
    star import, `exec`, `globals()` or `%run` are left out, and so are uses inside of a `try`.

    ## Why is this bad?

    The call raises a NameError. For a trainer that is after the model was downloaded and quantized.

    ## Example

    `AutoModelForCausalLM.from_pretrained(name, quantization_config=bnb_config)`, where the config is called `quant_config`.

    ## Fix

    Import the class, or pass the config under the name that it has.

    ## Fix safety

    Display only: what is meant is the user's to say.

    ## References

    - https://github.com/huggingface/transformers/pull/21579
    - https://huggingface.co/docs/transformers/main_classes/quantization
    """

    meta: ClassVar[Meta] = Meta(
        code="KB661",
        slug="undefined-name",
        severity=Severity.ERROR,
        consequence=Consequence.FAILS,
        since="0.2.0",
    )

    def check_source(self, source: SourceFacts, context: TrainingContext) -> Iterator[Violation]:
        """Yield one violation for each name that a call needs and nothing binds."""
        for fault in source.object_faults:
            if fault.kind == "undefined":
                yield self.violation(
                    f"nothing in this file binds {fault.name}: a NameError",
                    source.at_line(fault.line, fault.name),
                    surface=Surface.SOURCE,
                    evidence={"name": fault.name},
                    fix=Fix(f"import or assign {fault.name}", Safety.DISPLAY),
                )
