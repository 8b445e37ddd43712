"""Rule KB507: quantized-tower."""

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

    Reports each submodel that reads images or audio and contains packed layers.

    ## Why is this bad?

    Training works, so the severity is info. By default only the output embedding stays unquantized. Towers are small
    and sensitive to rounding: answers about images get worse, and only a few megabytes are saved. Several projects
    therefore leave towers unquantized.

    ## Example

    `LlavaForConditionalGeneration` with `BitsAndBytesConfig(load_in_4bit=True)`.

    ## Fix

    Set `llm_int8_skip_modules` to the tower, the projector and `lm_head`. A list replaces the default.

    ## Fix safety

    Display only: the model has to be loaded again.

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
        """Yield one violation for each tower with packed layers."""
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
