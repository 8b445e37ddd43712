"""Rule KB991: trainable-head."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from kbitlint.rule import Meta, Rule
from kbitlint.violation import Consequence, Edit, Fix, Location, Safety, Severity, Violation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kbitlint.context import TrainingContext
    from kbitlint.facts.model import ModelFacts


class TrainableHead(Rule):
    """The output head requires grad.

    ## What it does

    Reports `lm_head.weight` if it requires grad.

    ## Why is this bad?

    Our runs train adapters only.

    ## Example

    A model straight from `from_pretrained`.

    ## Fix

    Freeze it.

    ## Fix safety

    Safe: no adapter is in the head.

    ## References

    - https://arxiv.org/abs/2305.14314
    """

    meta: ClassVar[Meta] = Meta("KB991", "trainable-head", Severity.WARNING, Consequence.TRAINS_WRONG, "1.0")

    def check_model(self, model: ModelFacts, context: TrainingContext) -> Iterator[Violation]:
        """Yield at most one violation."""
        for parameter in model.trainable:
            if parameter.path == "lm_head.weight":
                fix = Fix("freeze it", Safety.SAFE, (Edit("freeze", parameter.path),))
                yield self.violation("the head requires grad", Location(parameter.path), fix=fix)
