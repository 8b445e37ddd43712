"""Rule KB539: second-quantized-copy."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from kbitlint.facts.source import Action
from kbitlint.facts.values import Call
from kbitlint.rule import Meta, Rule
from kbitlint.violation import Consequence, Fix, Safety, Severity, Surface, Violation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kbitlint.context import TrainingContext
    from kbitlint.facts.source import SourceFacts, Step


class SecondQuantizedCopy(Rule):
    """A second copy of the base as the reference, beside adapters.

    ## What it does

    Reports a trainer of TRL that gets a model with adapters and, as `ref_model`, another load of the same checkpoint,
    quantized or not.

    ## Why is this bad?

    With adapters the reference is the base itself: TRL computes it with the adapters switched off. The second copy
    gives the same logits and holds the quantized base twice, which for a model of 70 billion parameters is 35 GB. A
    copy that is not quantized takes four times as much.

    ## Example

    `DPOTrainer(model, ref_model=AutoModelForCausalLM.from_pretrained(name, quantization_config=config),
    peft_config=LoraConfig(...))`.

    ## Fix

    Pass `ref_model=None`, and do not load the copy.

    ## Fix safety

    Display only: the statement that loads the copy has to go too.

    ## References

    - https://github.com/huggingface/trl/issues/1289
    """

    meta: ClassVar[Meta] = Meta(
        code="KB539",
        slug="second-quantized-copy",
        severity=Severity.WARNING,
        consequence=Consequence.COSTS_MEMORY,
        since="0.1.0",
    )

    def check_source(self, source: SourceFacts, context: TrainingContext) -> Iterator[Violation]:
        """Yield one violation for each trainer with such a reference on every path."""
        for call, steps in source.steps_at(Action.TRAINER):
            given = call.argument("ref_model")
            if given is not None and all(_is_copy(step) for step in steps):
                yield self.violation(
                    "the reference is a second copy of the base, which the model holds already",
                    source.at_line(given.whole.line, "ref_model"),
                    surface=Surface.SOURCE,
                    evidence={"checkpoint": _name(steps[0].before.load)},
                    fix=Fix("pass ref_model=None: the reference is the model without its adapters", Safety.DISPLAY),
                )


def _is_copy(step: Step) -> bool:
    model, name = step.before, _name(step.before.load)
    return (
        isinstance(step.detail, Call)
        and model.adapters is not None
        and model.adapters.by.callee != "peft.PeftModel.from_pretrained"  # its reference is the adapter before training
        and model.kbit
        and name is not None
        and name == _name(step.detail)
    )


def _name(load: Call | None) -> str | None:
    """Return the checkpoint's name; None if it is not known."""
    value = load.value("pretrained_model_name_or_path") if load is not None else None
    return value if isinstance(value, str) else None
