"""Rule KB820: leftover-quantization-config."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from kbitlint.rule import Meta, Rule, Unchecked
from kbitlint.violation import Consequence, Edit, Fix, Location, Safety, Severity, Surface, Violation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kbitlint.context import TrainingContext
    from kbitlint.facts.checkpoint import CheckpointFacts


class LeftoverQuantizationConfig(Rule):
    """A quantization config beside weights that are not quantized.

    ## What it does

    Reports a bitsandbytes `quantization_config` in config.json if no tensor in the safetensors headers is packed. It is
    left over if a model is dequantized or merged by hand and saved with its old config.

    ## Why is this bad?

    Loading treats the float weights as packed ones and succeeds. The first forward pass then raises: an AssertionError
    for 4 bits, and `'Parameter' object has no attribute 'CB'` for 8 bits.

    ## Example

    A merged 16-bit model whose config.json still holds `quantization_config: {load_in_4bit: true, ...}`.

    ## Fix

    Delete `quantization_config` from config.json.

    ## Fix safety

    Safe: the weights do not change, and the config then matches them.

    ## References

    - https://github.com/huggingface/transformers/issues/34847
    - https://github.com/unslothai/unsloth/issues/1601
    - https://github.com/allenai/open-instruct/issues/149
    """

    meta: ClassVar[Meta] = Meta(
        code="KB820",
        slug="leftover-quantization-config",
        severity=Severity.ERROR,
        consequence=Consequence.FAILS,
        since="0.1.0",
    )

    def check_files(self, checkpoint: CheckpointFacts, context: TrainingContext) -> Iterator[Violation]:
        """Yield at most one violation, on the key of config.json."""
        quantization = checkpoint.quantization or {}
        if not checkpoint.tensors or checkpoint.damages or checkpoint.unread:
            raise Unchecked("not all safetensors headers are here")
        packing = checkpoint.packing
        if (
            quantization.get("quant_method") == "bitsandbytes"
            and packing.floating
            and not packing.packed
            and packing.method is None
        ):
            yield self.violation(
                f"config.json says that the model is quantized, and all {len(packing.floating)} matrices are stored as floats",
                Location("quantization_config", "config.json"),
                surface=Surface.FILES,
                evidence={"floating": len(packing.floating)},
                fix=Fix("delete it", Safety.SAFE, (Edit("remove-json-key", "config.json", {"key": "quantization_config"}),)),
            )
