"""Rule KB106: float16-compute."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from kbitlint.rule import Meta, Rule, Unchecked
from kbitlint.violation import Consequence, Edit, Fix, Location, Safety, Severity, Violation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kbitlint.context import TrainingContext
    from kbitlint.facts.model import ModelFacts


class Float16Compute(Rule):
    """A bfloat16 model whose quantized layers compute in float16.

    ## What it does

    Applies to models whose config records bfloat16. Reports 4-bit layers with float16 as compute dtype, and float16
    autocast. Reports bitsandbytes 8-bit layers as an info.

    ## Why is this bad?

    The range of bfloat16 ends at 3e38, that of float16 at 65504. Activations of models that were trained in bfloat16
    (Gemma, the T5 family, Qwen3) can exceed 65504. A 4-bit layer then returns `inf`, and the loss becomes NaN.

    On CUDA, bitsandbytes' 8-bit kernel casts its input to float16, independent of the model's dtype. The CPU kernel
    does not, so 8-bit layers are an info.

    ## Example

    `BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_compute_dtype=torch.float16)` on a bfloat16 checkpoint, as in
    notebooks that were written for a T4.

    ## Fix

    Compute in bfloat16, or in float32 on GPUs without bfloat16.

    ## Fix safety

    Unsafe: products are rounded to 8 instead of 11 bits, so logits change. Display only for autocast; 8-bit layers have
    no fix.

    ## References

    - https://github.com/huggingface/transformers/issues/39972
    - https://github.com/huggingface/peft/issues/2424
    - https://github.com/bitsandbytes-foundation/bitsandbytes/issues/1868
    """

    meta: ClassVar[Meta] = Meta(
        code="KB106",
        slug="float16-compute",
        severity=Severity.WARNING,
        consequence=Consequence.UNSTABLE,
        since="0.1.0",
    )

    def check_model(self, model: ModelFacts, context: TrainingContext) -> Iterator[Violation]:
        """Yield one violation for each 4-bit layer, and at most one each for autocast and for 8-bit layers."""
        if not model.quantized:
            raise Unchecked("no layer is quantized")
        if model.dtype != "bfloat16":
            return
        for layer in model.quantized:
            if layer.packing.compute_dtype == "float16":
                edit = Edit("compute-dtype", layer.path, {"dtype": "bfloat16"})
                yield self.violation(
                    "4-bit layer computes in float16 while the model is bfloat16",
                    Location(layer.path),
                    evidence={"compute_dtype": "float16", "model_dtype": model.dtype, "largest_finite": 65504},
                    fix=Fix("compute in bfloat16", Safety.UNSAFE, (edit,)),
                )
        if context.autocast_dtype == "float16":
            yield self.violation(
                "autocast computes in float16 while the model is bfloat16",
                Location(),
                evidence={"autocast_dtype": "float16", "model_dtype": model.dtype, "largest_finite": 65504},
                fix=Fix("train with bf16=True", Safety.DISPLAY),
            )
        eight = [facts for facts in model.quantized if facts.packing.method == "bitsandbytes" and facts.packing.bits == 8]
        if eight:
            yield self.violation(
                "8-bit layers cast activations to float16 on CUDA while the model is bfloat16",
                Location(),
                severity=Severity.INFO,
                evidence={"layers": len(eight), "model_dtype": model.dtype, "largest_finite": 65504},
            )
