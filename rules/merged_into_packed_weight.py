"""Rule KB604: merged-into-packed-weight."""

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

    Merging dequantizes the weight, adds the update of the adapter and quantizes the sum. Changes smaller than a
    quantization step are lost. With updates of 0.002 on nf4 weights of up to 0.08, the error was as large as the update
    itself.

    `unmerge_adapter()` does not restore the old weight, because it rounds again. A merged adapter takes no part in the
    forward pass, so it learns nothing.

    ## Example

    `model.merge_adapter()` for an evaluation in the middle of a QLoRA run.

    ## Fix

    Evaluate without merging. For a permanent merge, load the base in 16 bits.

    ## Fix safety

    Display only: the original weights are gone. Load the base again.

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
        """Yield one violation for each quantized layer whose adapter is merged."""
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
