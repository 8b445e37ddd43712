"""Rule KB333: config-of-other-bits."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from kbitlint.rule import Meta, Rule, Unchecked
from kbitlint.violation import Consequence, Fix, Location, Safety, Severity, Surface, Violation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kbitlint.context import TrainingContext
    from kbitlint.facts.checkpoint import CheckpointFacts


class ConfigOfOtherBits(Rule):
    """A checkpoint whose config asks for other bits than its weights are packed in.

    ## What it does

    Compares `load_in_4bit` and `load_in_8bit` in config.json with the packed weights, by the safetensors headers. Reports a
    folder all of whose packed weights have the other number of bits.

    ## Why is this bad?

    The config decides which layers transformers makes. An 8-bit layer takes the bytes of two 4-bit numbers for one number,
    and a 4-bit layer finds no state to unpack with. The load raises, or the model computes with noise.

    ## Example

    A config.json that was copied from the 8-bit variant of a model.

    ## Fix

    Restore the config that was saved with the weights.

    ## Fix safety

    Display only: the other settings of the config may be wrong too.

    ## References

    - https://github.com/bitsandbytes-foundation/bitsandbytes/issues/831
    """

    meta: ClassVar[Meta] = Meta(
        code="KB333",
        slug="config-of-other-bits",
        severity=Severity.ERROR,
        consequence=Consequence.FAILS,
        since="0.2.0",
    )

    def check_files(self, checkpoint: CheckpointFacts, context: TrainingContext) -> Iterator[Violation]:
        """Yield at most one violation, on the key of config.json."""
        if not checkpoint.tensors or checkpoint.damages or checkpoint.unread:
            raise Unchecked("not all safetensors headers are here")
        quantization = checkpoint.quantization or {}
        asked = [bits for bits in (4, 8) if quantization.get(f"load_in_{bits}bit") is True]
        packed = {item.bits for item in checkpoint.packing.packed}
        if quantization.get("quant_method") == "bitsandbytes" and len(asked) == 1 and packed == {12 - asked[0]}:
            yield self.violation(
                f"config.json asks for {asked[0]} bits, and all weights are packed in {12 - asked[0]} bits",
                Location(f"quantization_config.load_in_{asked[0]}bit", "config.json"),
                surface=Surface.FILES,
                evidence={"packed": len(checkpoint.packing.packed)},
                fix=Fix("restore the config that was saved with the weights", Safety.DISPLAY),
            )
