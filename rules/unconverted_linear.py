"""KB510."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from kbitlint.rule import Meta, Rule, Unchecked
from kbitlint.violation import Consequence, Fix, Location, Safety, Severity, Violation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kbitlint.context import TrainingContext
    from kbitlint.facts.model import ModelFacts

#: with less of the model packed, most of what quantization is for is lost
HALF = 0.5


class UnconvertedLinear(Rule):
    """A linear layer of a quantized model is not packed, and no list says that it should be left out.

    ## What it does

    Compares what the quantizer was told to leave out with what is not packed, and reports every `nn.Linear` of the
    base model, subclasses included, that is float and on no list.

    ## Why is this bad?

    bitsandbytes replaces modules whose class is exactly `nn.Linear` or `Conv1D`. A subclass (`FalconLinear`, the output
    projection of torch's `MultiheadAttention`, layers of remote code) stays as it is without a word, and so does what
    somebody puts in afterwards. Training works; what it costs is the memory of 16 bits. A warning where less than half
    of the model is packed, else worth knowing.

    ## Example

    A vision tower with `nn.MultiheadAttention`: `out_proj` is a `NonDynamicallyQuantizableLinear`.

    ## Fix

    Name the layer in `llm_int8_skip_modules` if it is meant to stay, or pack it with `bitsandbytes.nn.Linear4bit`.

    ## Fix safety

    Nothing is applied: code that subclasses `nn.Linear` may read the weight itself.

    ## References

    - https://github.com/bitsandbytes-foundation/bitsandbytes/issues/1331
    - https://github.com/bitsandbytes-foundation/bitsandbytes/issues/963
    - https://github.com/huggingface/peft/issues/760
    """

    meta: ClassVar[Meta] = Meta(
        code="KB510",
        slug="unconverted-linear",
        severity=Severity.INFO,
        consequence=Consequence.COSTS_MEMORY,
        since="0.1.0",
    )

    def check_model(self, model: ModelFacts, context: TrainingContext) -> Iterator[Violation]:
        """One violation for each layer that was to be packed and is not."""
        if not model.quantized:
            raise Unchecked("no layer is quantized")
        if model.unconverted is None:
            raise Unchecked("no quantizer is attached that says which layers it left out")
        share = model.quantized_share
        left = sum(linear.numel for linear in model.unconverted) / model.numel
        for linear in model.unconverted:
            yield self.violation(
                f"{linear.class_name} is {linear.dtype} and on no list of layers to leave out",
                Location(linear.path),
                severity=Severity.WARNING if share < HALF <= share + left else Severity.INFO,
                evidence={"numel": linear.numel, "share_of_all": round(left, 4), "quantized_share": round(share, 4)},
                fix=Fix(
                    f'llm_int8_skip_modules=[..., "{linear.path.rpartition(".")[2]}"] if it is meant to stay', Safety.DISPLAY
                ),
            )
