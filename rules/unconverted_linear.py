"""Rule KB510: unconverted-linear."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from kbitlint.rule import Meta, Rule, Unchecked
from kbitlint.violation import Consequence, Fix, Location, Safety, Severity, Violation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kbitlint.context import TrainingContext
    from kbitlint.facts.model import ModelFacts

#: below this packed share of the model, most of the benefit of quantization is lost
HALF = 0.5


class UnconvertedLinear(Rule):
    """A linear layer of a quantized model that is neither packed nor on a list of layers to skip.

    ## What it does

    Compares the layers that the quantizer was set to leave out with the layers that are not packed. Reports each
    `nn.Linear` of the base model, subclasses included, that is float and on no such list.

    ## Why is this bad?

    bitsandbytes replaces modules whose class is exactly `nn.Linear` or `Conv1D`. Subclasses stay float without a
    message: `FalconLinear`, the output projection of torch's `MultiheadAttention`, layers of remote code. Layers that
    code inserts after loading stay float too.

    Training works, but these layers take the memory of 16 bits. It is a warning if they keep the packed share of the
    model below half, and an info otherwise.

    ## Example

    A vision tower with `nn.MultiheadAttention`: `out_proj` is a `NonDynamicallyQuantizableLinear`.

    ## Fix

    Name the layer in `llm_int8_skip_modules` if it should stay float, or pack it with `bitsandbytes.nn.Linear4bit`.

    ## Fix safety

    Display only: code that subclasses `nn.Linear` may read the weight itself.

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
        """Yield one violation for each float layer on no list."""
        if not model.quantized:
            raise Unchecked("no layer is quantized")
        if model.unconverted is None:
            raise Unchecked("no quantizer is attached that says which layers it left out")
        if not model.unconverted:
            return
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
