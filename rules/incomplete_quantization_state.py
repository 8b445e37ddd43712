"""Rule KB822: incomplete-quantization-state."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from kbitlint.rule import Meta, Rule, Unchecked
from kbitlint.violation import Consequence, Fix, Location, Safety, Severity, Surface, Violation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kbitlint.context import TrainingContext
    from kbitlint.facts.checkpoint import CheckpointFacts
    from kbitlint.facts.model import ModelFacts


class IncompleteQuantizationState(Rule):
    """Packed weights without their full quantization state, or a state without its weight.

    ## What it does

    Reads the safetensors headers. Reports bitsandbytes weights that lack the tensors to unpack them (`absmax`,
    `quant_map`, `quant_state`, their nested variants, `SCB`). Also reports such tensors without their weight.

    In a model, reports packed weights whose `quant_state` (4 bits) or `SCB` (8 bits) is on neither the weight nor its
    layer.

    ## Why is this bad?

    Without its scales a packed weight is noise, and loading stops with an error while the weights are converted. Causes
    are a state dict filtered by name, merged from two sources, or saved from a model with replaced layers.

    In a model, the first forward pass raises `ValueError: quant_state is required`. The scales are attributes of the
    weight. They are lost if the weight is replaced by a tensor with the same bytes.

    ## Example

    A file with `q_proj.weight` and `q_proj.weight.quant_map`, but without `q_proj.weight.absmax`.

    ## Fix

    Save the quantized model again with `save_pretrained`. If the model in memory is incomplete, load it again.

    ## Fix safety

    Display only: the missing tensors cannot be computed from the others.

    ## References

    - https://github.com/bitsandbytes-foundation/bitsandbytes/issues/1123
    - https://github.com/unslothai/unsloth/issues/39
    """

    meta: ClassVar[Meta] = Meta(
        code="KB822",
        slug="incomplete-quantization-state",
        severity=Severity.ERROR,
        consequence=Consequence.FAILS,
        since="0.1.0",
    )

    def check_model(self, model: ModelFacts, context: TrainingContext) -> Iterator[Violation]:
        """Yield one violation for each packed weight without its quantization state."""
        fix = Fix("load the quantized model again", Safety.DISPLAY)
        for layer in model.quantized:
            if layer.lacks:
                message = f"a packed weight is without its {layer.lacks}"
                yield self.violation(message, Location(layer.path), evidence={"bits": layer.packing.bits}, fix=fix)

    def check_files(self, checkpoint: CheckpointFacts, context: TrainingContext) -> Iterator[Violation]:
        """Yield one violation for each module with an incomplete or orphaned state."""
        if not checkpoint.tensors:
            raise Unchecked("no safetensors headers here")
        if checkpoint.damages or checkpoint.unread:
            raise Unchecked("not all safetensors headers are here")
        fix = Fix("save the quantized model again", Safety.DISPLAY)
        for item in checkpoint.packing.packed:
            if item.missing:
                file = next((t.file for name, t in checkpoint.tensors.items() if name == f"{item.module}.weight"), "")
                message = f"a packed weight is stored without its {', '.join(item.missing)}"
                yield self.violation(message, Location(item.module, file), surface=Surface.FILES, fix=fix)
        for module in checkpoint.packing.orphaned:
            message = "a quantization state is stored without its weight"
            yield self.violation(message, Location(module, "model.safetensors"), surface=Surface.FILES, fix=fix)
