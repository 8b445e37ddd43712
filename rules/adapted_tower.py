"""KB605."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from kbitlint.rule import Meta, Rule, Unchecked
from kbitlint.violation import Consequence, Fix, Location, Safety, Severity, Violation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kbitlint.context import TrainingContext
    from kbitlint.facts.model import ModelFacts


class AdaptedTower(Rule):
    """Adapters sit in the vision or audio tower as well.

    ## What it does

    Reports a model within the model that reads images or sound and has adapters in it, with their number there and in
    all.

    ## Why is this bad?

    `target_modules="all-linear"`, and names that both towers use, such as `q_proj`, match everywhere. That may be meant.
    It costs time and memory, on batches of text these adapters get no gradient, and under DDP with
    `find_unused_parameters=False` or with sharded parameters ranks then wait for one another. Worth knowing.

    ## Example

    `LoraConfig(target_modules="all-linear")` on LLaVA.

    ## Fix

    `exclude_modules`, or a regular expression: `r".*language_model.*(q|v)_proj"`.

    ## Fix safety

    Nothing is applied: which layers learn is the user's to say.

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
        """One violation for each tower with adapters."""
        if not model.has_adapters:
            raise Unchecked("no adapters are attached yet")
        for tower in model.towers:
            inside = [layer for layer in model.adapted if layer.path.startswith(f"{tower.path}.")]
            if inside:
                yield self.violation(
                    f"tower that reads {tower.reads} has adapters",
                    Location(tower.path),
                    evidence={"class": tower.class_name, "layers": len(inside), "layers_of_all": len(model.adapted)},
                    fix=Fix(f'exclude_modules=r".*{tower.path.rpartition(".")[2]}.*" in the adapter\'s config', Safety.DISPLAY),
                )
