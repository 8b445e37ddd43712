"""Rule KB711: second-copy-of-base."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from kbitlint.rule import Meta, Rule, Unchecked
from kbitlint.sizes import size
from kbitlint.violation import Consequence, Fix, Location, Safety, Severity, Surface, Violation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kbitlint.context import TrainingContext
    from kbitlint.facts.ranks import RanksFacts


class SecondCopyOfBase(Rule):
    """A reference model that is a second copy of the base, beside adapters.

    ## What it does

    Reports a Trainer whose `ref_model` is a model of its own, of the same class and checkpoint as the base of the adapters
    that it trains.

    ## Why is this bad?

    The base is frozen, so the model with its adapters disabled is the reference. A second copy takes its memory again, and
    gives the same logits.

    ## Example

    `DPOTrainer(model, ref_model=AutoModelForCausalLM.from_pretrained(name, ...), peft_config=LoraConfig(...))`.

    ## Fix

    Leave `ref_model` out.

    ## Fix safety

    Display only: the argument is in code.

    ## References

    - https://github.com/huggingface/trl/issues/1289
    - https://github.com/huggingface/trl/issues/3926
    """

    meta: ClassVar[Meta] = Meta(
        code="KB711",
        slug="second-copy-of-base",
        severity=Severity.WARNING,
        consequence=Consequence.COSTS_MEMORY,
        since="0.1.0",
    )

    def check_ranks(self, ranks: RanksFacts, context: TrainingContext) -> Iterator[Violation]:
        """Yield at most one violation, on the run as a whole."""
        reference = ranks.reference
        if reference is None:
            raise Unchecked("no trainer with a reference model is at hand")
        if reference.same_base and reference.nbytes and ranks.model.has_adapters:
            yield self.violation(
                f"the reference model is a second copy of the base: {size(reference.nbytes)}",
                Location(),
                surface=Surface.RANKS,
                evidence={"class": reference.class_name, "nbytes": reference.nbytes},
                fix=Fix("leave ref_model out: the model without its adapters is the reference", Safety.DISPLAY),
            )
