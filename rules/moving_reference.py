"""Rule KB712: moving-reference."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from kbitlint.rule import Meta, Rule, Unchecked
from kbitlint.violation import Consequence, Fix, Location, Safety, Severity, Surface, Violation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kbitlint.context import TrainingContext
    from kbitlint.facts.ranks import RanksFacts


class MovingReference(Rule):
    """The reference is the trained model without its adapters, and parameters outside them train.

    ## What it does

    Reports a Trainer with a reference and no reference model, if parameters train that disabling the adapters does not
    restore: biases (`bias="all"`), norms, embeddings that were unfrozen by hand.

    ## Why is this bad?

    DPO, KTO and GRPO compare the policy with a fixed reference. With adapters and `ref_model=None` the reference is the same
    model with the adapters disabled. What trains outside the adapters stays in it, so the reference moves with the policy,
    and the divergence from it is measured too small.

    ## Example

    `DPOTrainer(model, peft_config=LoraConfig(bias="all"))`.

    ## Fix

    Train adapters only: `bias="none"`, and `modules_to_save` for whole modules, which disabling the adapters restores.

    ## Fix safety

    Display only: which parameters train is the user's choice.

    ## References

    - https://github.com/huggingface/trl/issues/6975
    - https://github.com/huggingface/trl/issues/1289
    """

    meta: ClassVar[Meta] = Meta(
        code="KB712",
        slug="moving-reference",
        severity=Severity.WARNING,
        consequence=Consequence.TRAINS_WRONG,
        since="0.1.0",
    )

    def check_ranks(self, ranks: RanksFacts, context: TrainingContext) -> Iterator[Violation]:
        """Yield at most one violation, on the first of the parameters."""
        reference = ranks.reference
        if reference is None or not ranks.model.adapters:
            raise Unchecked("no trainer with adapters and a reference is at hand")
        outside = [p.path for p in ranks.model.trainable if not p.adapter_name and not p.outside]
        if not reference.class_name and outside:
            yield self.violation(
                f"the reference is this model without its adapters, and {len(outside)} parameters outside them train",
                Location(outside[0]),
                surface=Surface.RANKS,
                evidence={"parameters": len(outside)},
                fix=Fix('bias="none", or modules_to_save for whole modules', Safety.DISPLAY),
            )
