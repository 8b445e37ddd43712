"""KB106."""

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

    Reports 4-bit layers with float16 as compute dtype, float16 autocast, and 8-bit layers, in a model that its config
    records as bfloat16.

    ## Why is this bad?

    bfloat16 reaches 3e38, float16 only 65504. Activations of models that were trained in bfloat16 (Gemma, the T5
    family, Qwen3) go beyond that: a 4-bit layer then gives `inf`, and the loss turns NaN. bitsandbytes' 8-bit kernel
    casts its input to float16 on CUDA whatever the model computes in (the CPU kernel does not), so it is worth
    knowing there.

    ## Example

    `BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_compute_dtype=torch.float16)` on a bfloat16 checkpoint, the
    setting of notebooks that were written for a T4.

    ## Fix

    Compute in bfloat16; on GPUs that have none, in float32.

    ## Fix safety

    Unsafe: products are rounded to 8 instead of 11 bits, so logits move.

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
        """One violation for each 4-bit layer, and at most one for autocast and one for 8-bit layers."""
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
