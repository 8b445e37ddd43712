"""Rule KB624: empty-adapter-tensor."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from kbitlint.rule import Meta, Rule, Unchecked
from kbitlint.violation import Consequence, Fix, Location, Safety, Severity, Surface, Violation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kbitlint.context import TrainingContext
    from kbitlint.facts.checkpoint import CheckpointFacts


class EmptyAdapterTensor(Rule):
    """Saved adapter tensors without elements.

    ## What it does

    Reports tensors in adapter_model.safetensors whose shape contains a zero, and a file without any tensor.

    ## Why is this bad?

    Under ZeRO-3 and FSDP each rank holds a part of every parameter. The rest is empty until it is gathered. If
    parameters are saved in that state, the adapter is lost, and loading it stops with a size mismatch.

    ## Example

    `model.save_pretrained(out)` on rank 0 under ZeRO-3, without `stage3_gather_16bit_weights_on_model_save`. Or
    `model.merge_and_unload()` whose result is dropped, and `model.save_pretrained(out)` afterwards.

    ## Fix

    Save through the Trainer, or gather first: `save_pretrained(out, state_dict=accelerator.get_state_dict(model))`.

    ## Fix safety

    Display only: values that were not saved cannot be restored.

    ## References

    - https://github.com/huggingface/peft/issues/1443
    - https://github.com/huggingface/peft/issues/2500
    - https://github.com/huggingface/trl/issues/4416
    """

    meta: ClassVar[Meta] = Meta(
        code="KB624",
        slug="empty-adapter-tensor",
        severity=Severity.ERROR,
        consequence=Consequence.FAILS,
        since="0.1.0",
    )

    def check_files(self, checkpoint: CheckpointFacts, context: TrainingContext) -> Iterator[Violation]:
        """Yield one violation for each empty tensor."""
        if checkpoint.adapter_file and not checkpoint.adapter_tensors:
            yield self.violation(
                "the adapter's file holds no tensor",
                Location("", "adapter_model.safetensors"),
                surface=Surface.FILES,
                fix=Fix("save the model that holds the adapter", Safety.DISPLAY),
            )
            return
        if not checkpoint.adapter_tensors:
            raise Unchecked("no adapter_model.safetensors here")
        for name, tensor in checkpoint.adapter_tensors.items():
            if 0 in tensor.shape:
                yield self.violation(
                    "an adapter tensor without elements",
                    Location(name, "adapter_model.safetensors"),
                    surface=Surface.FILES,
                    evidence={"shape": list(tensor.shape)},
                    fix=Fix("gather the parameters before saving them", Safety.DISPLAY),
                )
