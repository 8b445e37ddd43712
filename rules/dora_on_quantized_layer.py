"""Rule KB603: dora-on-quantized-layer."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from kbitlint.rule import Meta, Rule, Unchecked
from kbitlint.violation import Consequence, Fix, Location, Safety, Severity, Violation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kbitlint.context import TrainingContext
    from kbitlint.facts.model import ModelFacts


MAGNITUDE = ".lora_magnitude_vector."
EIGHT = 8


class DoraOnQuantizedLayer(Rule):
    """DoRA dequantizes the base weight in every forward pass.

    ## What it does

    Reports layers with a DoRA magnitude vector on a packed base layer.

    ## Why is this bad?

    DoRA needs the norm of the weight. PEFT dequantizes the whole layer in every forward pass, and again in each
    recomputation. The step is slower, and briefly needs the memory of a 16-bit layer: an info.

    On bitsandbytes 8-bit layers on the CPU it is an error. There, dequantizing drops the layer's scales, because
    `weight.to(device)` creates new `Int8Params`. The second step raises `'NoneType' object has no attribute
    'unsqueeze'` (PEFT 0.21, bitsandbytes 0.50).

    ## Example

    `LoraConfig(use_dora=True)` on a model that is loaded with `load_in_8bit=True`.

    ## Fix

    Load in 4 bits instead of 8, or use LoRA without DoRA.

    ## Fix safety

    Display only: the model has to be loaded, or the adapters attached, again.

    ## References

    - https://github.com/huggingface/peft/issues/1797
    - https://github.com/huggingface/peft/issues/1518
    - https://github.com/huggingface/peft/issues/1474
    """

    meta: ClassVar[Meta] = Meta(
        code="KB603",
        slug="dora-on-quantized-layer",
        severity=Severity.INFO,
        consequence=Consequence.COSTS_TIME,
        since="0.1.0",
    )

    def check_model(self, model: ModelFacts, context: TrainingContext) -> Iterator[Violation]:
        """Yield one violation for each layer that DoRA dequantizes."""
        if not model.has_adapters:
            raise Unchecked("no adapters are attached yet")
        magnitudes = [p for p in model.parameters if MAGNITUDE in p.path]
        packed = {facts.path: facts.packing for facts in model.quantized}
        for magnitude in magnitudes:
            layer = magnitude.path.partition(MAGNITUDE)[0]
            packing = packed.get(f"{layer}.base_layer")
            if packing is None:
                continue
            breaks = packing.method == "bitsandbytes" and packing.bits == EIGHT and magnitude.device == "cpu"
            yield self.violation(
                "DoRA drops the scales of an 8-bit layer on the CPU: the second step raises"
                if breaks
                else "DoRA dequantizes the layer in every forward pass",
                Location(layer),
                severity=Severity.ERROR if breaks else Severity.INFO,
                consequence=Consequence.FAILS if breaks else Consequence.COSTS_TIME,
                evidence={"method": packing.method, "bits": packing.bits, "device": magnitude.device},
                fix=Fix("load in 4 bits" if breaks else "use_dora=False", Safety.DISPLAY),
            )
