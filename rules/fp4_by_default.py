"""Rule KB520: fp4-by-default."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from kbitlint.rule import Meta, Rule
from kbitlint.upstream.misspelt import misspelt_arguments
from kbitlint.violation import Consequence, Fix, Safety, Severity, Surface, Violation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kbitlint.context import TrainingContext
    from kbitlint.facts.source import SourceFacts


class Fp4ByDefault(Rule):
    """Weights of 4 bits are stored as fp4 because no quantization type is set.

    ## What it does

    Reports `BitsAndBytesConfig(load_in_4bit=True)` without `bnb_4bit_quant_type`, whose default is fp4. An explicit fp4
    is not reported.

    ## Why is this bad?

    The nf4 type of the QLoRA paper fits the distribution of weights better. The paper reports a perplexity of 27.41 for
    nf4 with double quantization, and of 29.48 or more for fp4. Training works with both, so the severity is info.

    ## Example

    `BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_compute_dtype=torch.bfloat16)`.

    ## Fix

    Set `bnb_4bit_quant_type='nf4'`.

    ## Fix safety

    Unsafe: the quantized weights change, so adapters that were trained on the fp4 base no longer fit.

    ## References

    - https://github.com/bitsandbytes-foundation/bitsandbytes/issues/2077
    - https://arxiv.org/abs/2305.14314
    """

    meta: ClassVar[Meta] = Meta(
        code="KB520",
        slug="fp4-by-default",
        severity=Severity.INFO,
        consequence=Consequence.HARMLESS,
        since="0.1.0",
    )

    def check_source(self, source: SourceFacts, context: TrainingContext) -> Iterator[Violation]:
        """Yield one violation for each 4-bit config without a quantization type."""
        for call in source.calls_of("transformers.BitsAndBytesConfig"):
            forgotten = not call.gives("bnb_4bit_quant_type") and "bnb_4bit_quant_type" not in misspelt_arguments(call)
            if call.value("load_in_4bit") is True and call.complete and forgotten:
                yield self.violation(
                    "weights are packed as fp4: bnb_4bit_quant_type is not given",
                    source.at(call),
                    surface=Surface.SOURCE,
                    evidence={"quant_type": "fp4"},
                    fix=Fix("use nf4", Safety.UNSAFE, source.set_value(call, "bnb_4bit_quant_type", "nf4")),
                )
