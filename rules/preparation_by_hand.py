"""Rule KB628: preparation-by-hand."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from kbitlint.facts.dtypes import CAST_TO
from kbitlint.facts.source import Action
from kbitlint.rule import Meta, Rule
from kbitlint.violation import Consequence, Fix, Safety, Severity, Surface, Violation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kbitlint.context import TrainingContext
    from kbitlint.facts.source import SourceFacts


class PreparationByHand(Rule):
    """The k-bit preparation of 2023, written out by hand.

    ## What it does

    Reports loops over the parameters of a quantized model that freeze them and cast some to float32. The first
    notebooks for 8-bit training did this. The model must have neither adapters nor another preparation at that point.

    ## Why is this bad?

    Such a loop does only a part of what the libraries do today. It leaves float32 norms beside a 16-bit head, so the
    first forward pass outside autocast stops with a dtype mismatch. It does not enable checkpointing without reentry.

    ## Example

    `for param in model.parameters(): param.requires_grad = False; if param.ndim == 1: param.data =
    param.data.to(torch.float32)`.

    ## Fix

    Call `prepare_model_for_kbit_training`, or `kbitlint.fix(model)`, instead.

    ## Fix safety

    Display only: the loop may do more.

    ## References

    - https://github.com/huggingface/peft/issues/80
    - https://github.com/huggingface/peft/issues/1515
    - https://github.com/haotian-liu/LLaVA/issues/783
    """

    meta: ClassVar[Meta] = Meta(
        code="KB628",
        slug="preparation-by-hand",
        severity=Severity.INFO,
        consequence=Consequence.HARMLESS,
        since="0.1.0",
    )

    def check_source(self, source: SourceFacts, context: TrainingContext) -> Iterator[Violation]:
        """Yield one violation for each cast of parameters by hand on a model that is quantized on every path."""
        for call, steps in source.steps_at(Action.PREPARED_BY_HAND):
            if steps[0].before.bits == 4 and steps[0].detail in CAST_TO:
                continue  # it casts the packed weights too: altered-packed-weight
            if all(step.before.kbit and step.before.prepared is None and step.before.adapters is None for step in steps):
                yield self.violation(
                    "parameters of a quantized model are cast one by one",
                    source.at(call),
                    surface=Surface.SOURCE,
                    fix=Fix("call prepare_model_for_kbit_training in its place", Safety.DISPLAY),
                )
