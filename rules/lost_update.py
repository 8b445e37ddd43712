"""Rule KB307: lost-update."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from kbitlint.rule import Meta, Option, Rule, Unchecked
from kbitlint.violation import Consequence, Edit, Fix, Location, Safety, Severity, Violation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kbitlint.context import TrainingContext
    from kbitlint.facts.model import ModelFacts

#: half a unit in the last place of bfloat16, as a share of the next lower power of two: the significand has 8 bits
_HALF_UNIT = 2.0**-9


class LostUpdate(Rule):
    """Adapter vectors in bfloat16 whose values are too large for a step of the optimizer to change.

    ## What it does

    Reports trained bfloat16 vectors of adapters, such as DoRA's magnitudes, if a step of the learning rate is less than
    half a unit in the last place of their smallest value. Reads the values, so a model without weights is not checked.

    ## Why is this bad?

    A step of AdamW changes each value by the learning rate at most. bfloat16 has 8 significant bits: at a magnitude of
    1.0 it rounds away every change below 0.002. The parameters get gradients, the optimizer runs, and no bit changes. A
    magnitude starts as the length of a weight's row, so it is large from the start.

    ## Example

    `get_peft_model(model, LoraConfig(use_dora=True), autocast_adapter_dtype=False)` on a bfloat16 model.

    ## Fix

    Keep these parameters in float32, as PEFT does by default.

    ## Fix safety

    Safe: LoRA's layers cast their input and restore the dtype of the result.

    ## References

    - https://github.com/huggingface/trl/issues/7268
    """

    meta: ClassVar[Meta] = Meta(
        code="KB307",
        slug="lost-update",
        severity=Severity.WARNING,
        consequence=Consequence.TRAINS_NOTHING,
        since="0.1.0",
    )
    options: ClassVar[tuple[Option, ...]] = (
        Option("learning-rate", 2e-4, "The learning rate, at which AdamW changes a value in one step"),
    )

    def check_model(self, model: ModelFacts, context: TrainingContext) -> Iterator[Violation]:
        """Yield one violation for each vector of an adapter that no step of the learning rate changes."""
        if not model.has_adapters:
            raise Unchecked("no adapters are attached yet")
        rate = context.learning_rate or float(self.option("learning-rate"))
        for parameter in model.trainable:
            lost = parameter.least * _HALF_UNIT
            if parameter.adapter and parameter.dtype == "bfloat16" and lost >= rate:
                edit = Edit("widen-parameter", parameter.path, {"dtype": "float32"}, adds_bytes=parameter.nbytes)
                widened = Fix("keep it in float32", Safety.SAFE, (edit,))
                yield self.violation(
                    f"bfloat16 rounds away every step below {lost:.1g}, so AdamW at {rate:g} never changes the parameter",
                    Location(parameter.path),
                    evidence={"least": round(parameter.least, 6), "learning_rate": rate},
                    fix=widened if ".lora_" in parameter.path else Fix("keep what is trained in float32", Safety.DISPLAY),
                )
