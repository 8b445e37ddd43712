"""KB221."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from kbitlint.rule import Meta, Rule
from kbitlint.source.facts import Action
from kbitlint.violation import Consequence, Fix, Safety, Severity, Surface, Violation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kbitlint.context import TrainingContext
    from kbitlint.source.facts import SourceFacts


class PreparationOfUnquantizedModel(Rule):
    """A model that is not quantized is prepared for k-bit training.

    ## What it does

    Reports `prepare_model_for_kbit_training` on a model that is loaded without a quantization config, from a
    checkpoint whose name tells of none, on every path.

    ## Why is this bad?

    PEFT then casts every 16-bit parameter to float32, which doubles the whole model, and enables no checkpointing
    although its argument says so.

    ## Example

    `model = AutoModelForCausalLM.from_pretrained(name, dtype=torch.bfloat16)` followed by
    `prepare_model_for_kbit_training(model)`.

    ## Fix

    Load with a `quantization_config`, or leave the call out and call `gradient_checkpointing_enable()` and, before
    attaching adapters, nothing else.

    ## Fix safety

    Shown only: either may be meant.

    ## References

    - https://github.com/huggingface/peft/issues/1149
    - https://github.com/huggingface/peft/issues/816
    - https://github.com/huggingface/peft/issues/3265
    """

    meta: ClassVar[Meta] = Meta(
        code="KB221",
        slug="preparation-of-unquantized-model",
        severity=Severity.WARNING,
        consequence=Consequence.COSTS_MEMORY,
        since="0.1.0",
    )

    def check_source(self, source: SourceFacts, context: TrainingContext) -> Iterator[Violation]:
        """One violation for each preparation of a model that is not quantized on any path."""
        for call, steps in source.steps_at(Action.PREPARE):
            if all(step.before.method is None and step.before.load is not None and step.before.certain for step in steps):
                yield self.violation(
                    "the model is not quantized: all of it becomes float32, and checkpointing stays off",
                    source.at(call),
                    surface=Surface.SOURCE,
                    evidence={"loaded_by": steps[0].before.load.callee if steps[0].before.load else None},
                    fix=Fix("load it with a quantization_config, or leave the preparation out", Safety.DISPLAY),
                )
