"""KB604."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from kbitlint.rule import Meta, Rule, Unchecked
from kbitlint.violation import Consequence, Fix, Location, Safety, Severity, Violation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kbitlint.context import TrainingContext
    from kbitlint.facts.model import ModelFacts


class MergedIntoPackedWeight(Rule):
    """An adapter was merged into packed weights.

    ## What it does

    Reports adapted layers whose adapter is merged while their base layer is quantized.

    ## Why is this bad?

    Merging dequantizes the weight, adds what the adapter learned and quantizes the sum. What is smaller than a
    quantization step is lost: with updates of 0.002 on weights of up to 0.08 in nf4, what the weight changed by and
    what it should have changed by differed by as much as the update itself. `unmerge_adapter()` does not bring the
    old weight back, since it rounds again. And a merged adapter takes no part in the forward pass, so it learns
    nothing.

    ## Example

    `model.merge_adapter()` for an evaluation in the middle of a QLoRA run.

    ## Fix

    Evaluate without merging; to merge for good, load the base in 16 bits.

    ## Fix safety

    Nothing is applied: the weights as they were are gone; load the base again.

    ## References

    - https://github.com/huggingface/peft/issues/2321
    - https://github.com/huggingface/peft/issues/2105
    - https://github.com/huggingface/peft/issues/1043
    """

    meta: ClassVar[Meta] = Meta(
        code="KB604",
        slug="merged-into-packed-weight",
        severity=Severity.ERROR,
        consequence=Consequence.TRAINS_WRONG,
        since="0.1.0",
    )

    def check_model(self, model: ModelFacts, context: TrainingContext) -> Iterator[Violation]:
        """One violation for each quantized layer that holds an adapter in its weight."""
        if not model.has_adapters:
            raise Unchecked("no adapters are attached yet")
        packed = {facts.path: facts.packing for facts in model.quantized}
        for layer in model.adapted:
            packing = packed.get(f"{layer.path}.base_layer")
            if layer.merged and packing is not None:
                yield self.violation(
                    f"adapter is merged into a weight that was rounded to {packing.kind} again",
                    Location(layer.path),
                    evidence={"method": packing.method, "bits": packing.bits},
                    fix=Fix("load the base again, and do not merge into packed weights", Safety.DISPLAY),
                )
