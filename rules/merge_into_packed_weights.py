"""Rule KB621: merge-into-packed-weights."""

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

#: adapters that are virtual tokens: peft.PeftModel keeps the base model as it is, which has no merge_and_unload
_PROMPTS = ("peft.Prompt", "peft.Prefix", "peft.MultitaskPrompt", "peft.CPTConfig", "peft.AdaptionPrompt")


def _missing(step: Step) -> str:
    """Return why the object has no method that merges; empty if it has one or that is not known."""
    adapters = step.before.adapters
    if step.detail == "base":
        return "the name still holds the base model, and only trainer.model holds the adapters"
    config = adapters.config if adapters is not None else None
    if isinstance(config, Call) and config.callee.startswith(_PROMPTS):
        return f"{config.callee.removeprefix('peft.')} adds no weights to a layer that could be merged"
    return ""


class MergeIntoPackedWeights(Rule):
    """Adapters are merged into quantized weights.

    ## What it does

    Reports `merge_and_unload()` and `merge_adapter()` on a model that is quantized on every path. It is an error if the object
    has no such method: the name that a TRL trainer received still holds the base, and virtual tokens are never merged.

    ## Why is this bad?

    PEFT unpacks each weight, adds the small update, and packs the sum again. Updates smaller than a quantization step
    are rounded away. The merged model answers differently from the model that was trained.

    ## Example

    `model = get_peft_model(model_in_4_bits, config)`, training, `model.merge_and_unload().save_pretrained(out)`.

    ## Fix

    Save the adapter, load the base again and merge there. Merge into `base.dequantize()` of the quantized base, which
    has the weights of the training run, or into the base in bfloat16.

    ## Fix safety

    Display only: the merge needs memory for the whole unpacked model.

    ## References

    - https://github.com/huggingface/peft/issues/2321
    - https://github.com/huggingface/transformers/issues/31293
    - https://github.com/huggingface/peft/issues/1043
    """

    meta: ClassVar[Meta] = Meta(
        code="KB621",
        slug="merge-into-packed-weights",
        severity=Severity.WARNING,
        consequence=Consequence.TRAINS_WRONG,
        since="0.1.0",
    )

    def check_source(self, source: SourceFacts, context: TrainingContext) -> Iterator[Violation]:
        """Yield one violation for each merge into weights that are packed on every path."""
        for call, steps in source.steps_at(Action.MERGE):
            missing = {_missing(step) for step in steps if step.before.certain}
            reason = missing.pop() if len(missing) == 1 else ""
            if reason:
                yield self.violation(
                    f"{reason}: an AttributeError, and nothing is merged",
                    source.at(call),
                    surface=Surface.SOURCE,
                    severity=Severity.ERROR,
                    consequence=Consequence.FAILS,
                    fix=Fix("merge trainer.model after loading it on an unquantized base", Safety.DISPLAY),
                )
            elif packs := [step for step in steps if step.before.kbit]:
                bits = packs[0].before.bits
                packed = f"{bits}-bit" if isinstance(bits, int) else "packed"
                yield self.violation(
                    f"the adapters are merged into {packed} weights, whose rounding swallows much of them",
                    source.at(call),
                    surface=Surface.SOURCE,
                    evidence={"method": packs[0].before.method},
                    fix=Fix("merge into the dequantized base, or into one that is loaded in bfloat16", Safety.DISPLAY),
                )
