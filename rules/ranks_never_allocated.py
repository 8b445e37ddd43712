"""Rule KB716: ranks-never-allocated."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from kbitlint.rule import Meta, Rule, Unchecked
from kbitlint.violation import Consequence, Fix, Location, Safety, Severity, Surface, Violation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kbitlint.context import TrainingContext
    from kbitlint.facts.ranks import RanksFacts


class RanksNeverAllocated(Rule):
    """AdaLoRA is trained by a Trainer that never reallocates its ranks.

    ## What it does

    Reports an active AdaLoRA adapter, if neither the Trainer nor one of its callbacks calls `update_and_allocate`.

    ## Why is this bad?

    PEFT leaves the call to the training loop, and transformers' Trainer does not make it. The adapters keep their initial
    rank, and `target_r`, `tinit` and `tfinal` mean nothing. It trains as LoRA with a third factor.

    ## Example

    `Trainer(get_peft_model(model, AdaLoraConfig(init_r=12, target_r=4, total_step=1000)), ...)`.

    ## Fix

    Call `model.base_model.update_and_allocate(state.global_step)` in a callback, in `on_optimizer_step`.

    ## Fix safety

    Display only: the callback is code.

    ## References

    - https://github.com/huggingface/peft/issues/432
    - https://github.com/huggingface/peft/issues/1801
    """

    meta: ClassVar[Meta] = Meta(
        code="KB716",
        slug="ranks-never-allocated",
        severity=Severity.WARNING,
        consequence=Consequence.TRAINS_WRONG,
        since="0.1.0",
    )

    def check_ranks(self, ranks: RanksFacts, context: TrainingContext) -> Iterator[Violation]:
        """Yield one violation for each active AdaLoRA adapter."""
        if ranks.allocates is None:
            raise Unchecked("no trainer is at hand")
        for adapter in ranks.model.adapters:
            if adapter.kind == "ADALORA" and adapter.active and not ranks.allocates:
                yield self.violation(
                    f"nothing calls update_and_allocate, so the ranks of adapter {adapter.name!r} stay as they begin",
                    Location(),
                    surface=Surface.RANKS,
                    evidence={"adapter": adapter.name},
                    fix=Fix("call update_and_allocate(step) in a callback, in on_optimizer_step", Safety.DISPLAY),
                )
