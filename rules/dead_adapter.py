"""Rule KB636: dead-adapter."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from kbitlint.rule import Meta, Rule, Unchecked
from kbitlint.violation import Consequence, Fix, Location, Safety, Severity, Violation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kbitlint.context import TrainingContext
    from kbitlint.facts.model import ModelFacts


class DeadAdapter(Rule):
    """A trainable LoRA adapter whose gradient is zero for every input.

    ## What it does

    Looks at the scaling, the dropout and the two factors of each LoRA adapter that trains. Reports a scaling of 0, a dropout
    of 1, and two factors that are both zero.

    ## Why is this bad?

    The gradient of each factor is a product with the other factor and with the scaling. If both factors are zero, both
    gradients are zero, and stay so. One factor of zeros is the normal start: the other one learns first.

    ## Example

    `lora_alpha=0`, `alpha_pattern={"q_proj": 0}`, or a loop that fills every new parameter with zeros.

    ## Fix

    Give the adapter a scaling, a dropout below 1, and one random factor: `init_lora_weights=True`.

    ## Fix safety

    Display only: the adapter has to be attached again.

    ## References

    - https://github.com/huggingface/peft/issues/1402
    - https://github.com/huggingface/peft/issues/3582
    """

    meta: ClassVar[Meta] = Meta(
        code="KB636",
        slug="dead-adapter",
        severity=Severity.ERROR,
        consequence=Consequence.TRAINS_NOTHING,
        since="0.1.0",
    )

    def check_model(self, model: ModelFacts, context: TrainingContext) -> Iterator[Violation]:
        """Yield one violation for each adapter and layer."""
        if not model.has_adapters:
            raise Unchecked("no adapters are attached yet")
        for layer in model.adapted:
            for adapter, reason in layer.dead:
                yield self.violation(
                    f"adapter {adapter!r} cannot learn here: {reason}",
                    Location(layer.path),
                    evidence={"adapter": adapter, "reason": reason},
                    fix=Fix("attach it with a scaling, a dropout below 1 and one random factor", Safety.DISPLAY),
                )
