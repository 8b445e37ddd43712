"""Rule KB821: packed-without-quantization-config."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from kbitlint.rule import Meta, Rule, Unchecked
from kbitlint.violation import Consequence, Fix, Location, Safety, Severity, Surface, Violation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kbitlint.context import TrainingContext
    from kbitlint.facts.checkpoint import CheckpointFacts


class PackedWithoutQuantizationConfig(Rule):
    """Packed weights beside a config without a quantization config.

    ## What it does

    Reports weights in the safetensors headers that bitsandbytes packed, if config.json has no `quantization_config`.

    ## Why is this bad?

    transformers builds ordinary layers. 4-bit weights do not fit their shapes, and loading stops. 8-bit weights fit,
    and the layers use the bare integers as weights.

    ## Example

    A quantized checkpoint whose config.json was replaced by that of the base model.

    ## Fix

    Restore the `quantization_config` with which the weights were saved.

    ## Fix safety

    Display only: the weights do not contain its arguments.

    ## References

    - https://github.com/unslothai/unsloth/issues/39
    - https://github.com/axolotl-ai-cloud/axolotl/issues/3530
    """

    meta: ClassVar[Meta] = Meta(
        code="KB821",
        slug="packed-without-quantization-config",
        severity=Severity.ERROR,
        consequence=Consequence.FAILS,
        since="0.1.0",
    )

    def check_files(self, checkpoint: CheckpointFacts, context: TrainingContext) -> Iterator[Violation]:
        """Yield at most one violation, on config.json."""
        if not checkpoint.tensors:
            raise Unchecked("no safetensors headers here")
        packed = checkpoint.packing.packed
        if packed and checkpoint.config is not None and checkpoint.quantization is None:
            silent = all(item.bits == 8 for item in packed)
            yield self.violation(
                f"{len(packed)} weights are packed, and config.json has no quantization_config",
                Location("", "config.json"),
                surface=Surface.FILES,
                consequence=Consequence.TRAINS_WRONG if silent else None,
                evidence={"packed": len(packed), "bits": sorted({item.bits for item in packed})},
                fix=Fix("put back the quantization_config that they were saved with", Safety.DISPLAY),
            )
