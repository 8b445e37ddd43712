"""KB821."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from kbitlint.rule import Meta, Rule, Unchecked
from kbitlint.violation import Consequence, Fix, Location, Safety, Severity, Surface, Violation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kbitlint.context import TrainingContext
    from kbitlint.facts.checkpoint import CheckpointFacts


class PackedWithoutQuantizationConfig(Rule):
    """Packed weights beside a config that does not say so.

    ## What it does

    Reports safetensors headers with weights that bitsandbytes has packed where config.json has no
    `quantization_config`.

    ## Why is this bad?

    transformers builds ordinary layers. For 4 bits their shapes do not fit and loading stops; for 8 bits they do, and
    the layers compute with the bare integers as if they were weights.

    ## Example

    A quantized checkpoint whose config.json was replaced by the one of the base model.

    ## Fix

    Put the `quantization_config` back that the weights were saved with.

    ## Fix safety

    Shown only: the arguments are not in the weights.

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
        """At most one violation, on config.json."""
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
