"""KB822."""

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
    """Packed weights without all of their quantization state, or a state without its weight.

    ## What it does

    Reports, from the safetensors headers, weights that bitsandbytes has packed without the scales that unpack them
    (`absmax`, `quant_map`, `quant_state`, their nested variants, `SCB`), and scales whose weight is not stored. In a model
    it reports packed weights whose `quant_state` (4 bits) or `SCB` (8 bits) is gone, on the weight and on its layer.

    ## Why is this bad?

    Without its scales a packed weight is noise; loading stops with an error in the conversion of the weights. It
    happens when a state dict is filtered by name, merged from two sources, or saved from a model whose layers were
    replaced. In a model the first forward pass raises (`ValueError: quant_state is required`): the scales are attributes
    of the weight, and are lost where it is replaced by a tensor with the same bytes.

    ## Example

    A file with `q_proj.weight` and `q_proj.weight.quant_map`, but without `q_proj.weight.absmax`.

    ## Fix

    Save the quantized model again with `save_pretrained`; load a model again.

    ## Fix safety

    Shown only: what is missing cannot be computed from what is there.

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
        """One violation for each packed weight that nothing unpacks any more."""
        fix = Fix("load the quantized model again", Safety.DISPLAY)
        for layer in model.quantized:
            if layer.lacks:
                message = f"a packed weight is without its {layer.lacks}"
                yield self.violation(message, Location(layer.path), evidence={"bits": layer.packing.bits}, fix=fix)

    def check_files(self, checkpoint: CheckpointFacts, context: TrainingContext) -> Iterator[Violation]:
        """One violation for each module whose weight and state do not belong together."""
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
