"""Rule KB551: packed-state-in-float-model."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from kbitlint.facts.source import Action
from kbitlint.facts.values import Call
from kbitlint.rule import Meta, Rule
from kbitlint.violation import Consequence, Fix, Safety, Severity, Surface, Violation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kbitlint.context import TrainingContext
    from kbitlint.facts.source import SourceFacts


class PackedStateInFloatModel(Rule):
    """The whole state dict of a quantized model is loaded into a model that is not quantized.

    ## What it does

    Reports `load_state_dict` of an unquantized model with the state dict of a model that bitsandbytes has packed: directly, or
    through `torch.save` and `torch.load` of the same file.

    ## Why is this bad?

    A packed 4-bit weight is a column of bytes, beside tensors for its statistics. `load_state_dict` raises `size mismatch` for
    each layer, also with `strict=False`: that flag forgives missing and unexpected names only.

    ## Example

    `torch.save(model.state_dict(), "model.pt")` after training in 4 bits, then `plain.load_state_dict(torch.load("model.pt"))`.

    ## Fix

    Save the adapters alone with `model.save_pretrained(folder)`, and load them with `PeftModel.from_pretrained(plain, folder)`.

    ## Fix safety

    Display only: both the save and the load change.

    ## References

    - https://huggingface.co/docs/peft/developer_guides/checkpoint
    - https://github.com/huggingface/peft/issues/286
    """

    meta: ClassVar[Meta] = Meta(
        code="KB551",
        slug="packed-state-in-float-model",
        severity=Severity.ERROR,
        consequence=Consequence.FAILS,
        since="0.1.0",
    )

    def check_source(self, source: SourceFacts, context: TrainingContext) -> Iterator[Violation]:
        """Yield one violation for each load of packed weights into an unquantized model on every path to it."""
        for call, steps in source.steps_at(Action.STATE):
            if all(isinstance(step.detail, Call) and step.before.method is None for step in steps):
                yield self.violation(
                    "the weights are packed, and this model is not quantized: their shapes differ, with strict=False too",
                    source.at(call),
                    surface=Surface.SOURCE,
                    fix=Fix("save and load the adapters alone", Safety.DISPLAY),
                )
