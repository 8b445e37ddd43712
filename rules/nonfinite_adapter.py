"""Rule KB634: nonfinite-adapter."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from kbitlint.rule import Meta, Rule, Unchecked
from kbitlint.violation import Consequence, Fix, Location, Safety, Severity, Surface, Violation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kbitlint.context import TrainingContext
    from kbitlint.facts.checkpoint import CheckpointFacts
    from kbitlint.facts.model import ModelFacts


class NonfiniteAdapter(Rule):
    """An adapter, or a tensor of the base model, that holds NaN or infinity.

    ## What it does

    Reads the first values of each tensor in adapter_model.safetensors, and of each vector (norms, biases) in a model's files.
    Reports tensors with a value that is not finite. On a model with weights, reports adapter parameters, vectors, frequencies
    and matrices with such a value. Of a large matrix it reads some rows.

    ## Why is this bad?

    One NaN in the loss makes every gradient NaN, and one step later every parameter. The run goes on, often with a loss of
    0.0. What is saved gives NaN for any input.

    ## Example

    Adapters in float16 under AdamW, whose epsilon is zero in float16; or float16 activations that overflow.

    ## Fix

    Find the cause with `kbitlint check` on the script, and train again from an earlier checkpoint.

    ## Fix safety

    Display only: the values are lost.

    ## References

    - https://github.com/huggingface/transformers/issues/23165
    - https://github.com/huggingface/peft/issues/341
    """

    meta: ClassVar[Meta] = Meta(
        code="KB634",
        slug="nonfinite-adapter",
        severity=Severity.ERROR,
        consequence=Consequence.TRAINS_WRONG,
        since="0.1.0",
    )

    def check_model(self, model: ModelFacts, context: TrainingContext) -> Iterator[Violation]:
        """Yield at most one violation, on the first parameter."""
        if model.nonfinite:
            yield self.violation(
                f"{len(model.nonfinite)} parameters or buffers hold NaN or infinity",
                Location(model.nonfinite[0]),
                evidence={"parameters": len(model.nonfinite)},
                fix=Fix("load the model, or the adapter of an earlier checkpoint, again", Safety.DISPLAY),
            )

    def check_files(self, checkpoint: CheckpointFacts, context: TrainingContext) -> Iterator[Violation]:
        """Yield at most one violation on the first tensor of an adapter, and one on the first vector of a model."""
        if not (checkpoint.adapter_tensors or checkpoint.tensors):
            raise Unchecked("no safetensors headers here")
        own = [name for name in checkpoint.nonfinite if name in checkpoint.adapter_tensors]
        if own:
            yield self.violation(
                f"{len(own)} of {len(checkpoint.adapter_tensors)} adapter tensors hold NaN or infinity",
                Location(own[0], "adapter_model.safetensors"),
                surface=Surface.FILES,
                evidence={"tensors": len(own)},
                fix=Fix("audit the script that trained it, and train again", Safety.DISPLAY),
            )
        vectors = [name for name in checkpoint.nonfinite if name in checkpoint.tensors]
        if vectors:
            yield self.violation(
                f"{len(vectors)} vectors of the model hold NaN or infinity",
                Location(vectors[0], checkpoint.tensors[vectors[0]].file),
                surface=Surface.FILES,
                evidence={"tensors": len(vectors)},
                fix=Fix("save or download the model again", Safety.DISPLAY),
            )
