"""KB507."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from kbitlint.rule import Meta, Rule, Unchecked
from kbitlint.violation import Consequence, Fix, Location, Safety, Severity, Violation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kbitlint.context import TrainingContext
    from kbitlint.facts.model import ModelFacts


class QuantizedTower(Rule):
    """The vision or audio tower of a model is quantized with its language model.

    ## What it does

    Reports a model within the model that reads images or sound and holds packed layers.

    ## Why is this bad?

    It is not an error: training works. But nobody asked for it: the default leaves out the output embedding only, and
    towers are small and sensitive to rounding, so that answers about images get worse for a few megabytes. Several
    projects therefore leave them out. Worth knowing.

    ## Example

    `LlavaForConditionalGeneration` with `BitsAndBytesConfig(load_in_4bit=True)`.

    ## Fix

    `llm_int8_skip_modules` with the tower, the projector and `lm_head`: a list replaces the default.

    ## Fix safety

    Nothing is applied: the model has to be loaded again.

    ## References

    - https://github.com/openvla/openvla/issues/137
    - https://github.com/haotian-liu/LLaVA/issues/1012
    - https://github.com/unslothai/unsloth/issues/4209
    """

    meta: ClassVar[Meta] = Meta(
        code="KB507",
        slug="quantized-tower",
        severity=Severity.INFO,
        consequence=Consequence.HARMLESS,
        since="0.1.0",
    )

    def check_model(self, model: ModelFacts, context: TrainingContext) -> Iterator[Violation]:
        """One violation for each tower with packed layers."""
        if not model.quantized:
            raise Unchecked("no layer is quantized")
        for tower in model.towers:
            inside = [facts for facts in model.quantized if facts.path.startswith(f"{tower.path}.")]
            if inside:
                yield self.violation(
                    f"tower that reads {tower.reads} is quantized",
                    Location(tower.path),
                    evidence={"class": tower.class_name, "layers": len(inside), "kind": inside[0].packing.kind},
                    fix=Fix(f'llm_int8_skip_modules=["{tower.path}", "lm_head"]', Safety.DISPLAY),
                )
