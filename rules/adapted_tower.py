"""Rule KB605: adapted-tower."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, ClassVar

from kbitlint.rule import Meta, Rule, Unchecked
from kbitlint.violation import Consequence, Fix, Location, Safety, Severity, Violation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kbitlint.context import TrainingContext
    from kbitlint.facts.model import ModelFacts


class AdaptedTower(Rule):
    """The vision or audio tower of a model has adapters.

    ## What it does

    Reports each submodel that reads images or audio and contains adapted layers. The evidence counts the adapted layers
    in the tower and in the whole model.

    ## Why is this bad?

    `target_modules="all-linear"`, and names that both towers use, such as `q_proj`, match layers in every tower. This
    can be intended, so the severity is info. The extra adapters cost time and memory, and get no gradient on text-only
    batches. Under DDP with `find_unused_parameters=False`, or with sharded parameters, ranks then wait for one another.

    ## Example

    `LoraConfig(target_modules="all-linear")` on LLaVA.

    ## Fix

    Set `exclude_modules`, or use a regular expression as `target_modules`: `r".*language_model.*(q|v)_proj"`.

    ## Fix safety

    Display only: the user decides which layers learn.

    ## References

    - https://github.com/hiyouga/LLaMA-Factory/issues/5996
    - https://github.com/unslothai/unsloth/issues/5039
    - https://github.com/hiyouga/LLaMA-Factory/issues/5616
    """

    meta: ClassVar[Meta] = Meta(
        code="KB605",
        slug="adapted-tower",
        severity=Severity.INFO,
        consequence=Consequence.COSTS_TIME,
        since="0.1.0",
    )

    def check_model(self, model: ModelFacts, context: TrainingContext) -> Iterator[Violation]:
        """Yield one violation for each tower with adapters."""
        if not model.has_adapters:
            raise Unchecked("no adapters are attached yet")
        for tower in model.towers:
            inside = [layer for layer in model.adapted if layer.path.startswith(f"{tower.path}.")]
            if inside:
                yield self.violation(
                    f"tower that reads {tower.reads} has adapters",
                    Location(tower.path),
                    evidence={"class": tower.class_name, "layers": len(inside), "layers_of_all": len(model.adapted)},
                    fix=Fix(f'exclude_modules=r"{re.escape(tower.path)}\\..*" in the adapter\'s config', Safety.DISPLAY),
                )
