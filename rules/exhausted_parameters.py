"""Rule KB656: exhausted-parameters."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from kbitlint.facts.source import Action
from kbitlint.rule import Meta, Rule
from kbitlint.violation import Consequence, Fix, Safety, Severity, Surface, Violation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kbitlint.context import TrainingContext
    from kbitlint.facts.source import SourceFacts


class ExhaustedParameters(Rule):
    """An optimizer that gets an iterator of parameters which has been read before.

    ## What it does

    Follows the iterators that `model.parameters()`, `filter(...)` and generator expressions return. Reports an optimizer that
    gets one after a loop, a `sum(...)` or a `list(...)` has read it to its end.

    ## Why is this bad?

    An iterator gives its items once. The optimizer finds none and raises: `optimizer got an empty parameter list`.

    ## Example

    `trainable = filter(lambda p: p.requires_grad, model.parameters())`, then `print(sum(p.numel() for p in trainable))`, then
    `torch.optim.AdamW(trainable)`.

    ## Fix

    Keep a list: `trainable = [p for p in model.parameters() if p.requires_grad]`.

    ## Fix safety

    Display only.

    ## References

    - https://github.com/pytorch/pytorch/issues/1266
    - https://github.com/huggingface/transformers/issues/6
    """

    meta: ClassVar[Meta] = Meta(
        code="KB656",
        slug="exhausted-parameters",
        severity=Severity.ERROR,
        consequence=Consequence.FAILS,
        since="0.2.0",
    )

    def check_source(self, source: SourceFacts, context: TrainingContext) -> Iterator[Violation]:
        """Yield one violation for each such optimizer."""
        for call, _ in source.steps_at(Action.USED_UP):
            yield self.violation(
                "the iterator of parameters has been read before, so the optimizer gets an empty list",
                source.at(call),
                surface=Surface.SOURCE,
                fix=Fix("keep a list: [p for p in model.parameters() if p.requires_grad]", Safety.DISPLAY),
            )
