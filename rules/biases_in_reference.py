"""Rule KB541: biases-in-reference."""

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
    from kbitlint.facts.values import Argument

#: trainers whose reference is the model with its adapters switched off
TRAINERS = tuple(f"trl.{name}Trainer" for name in ("DPO", "KTO", "GRPO", "RLOO", "OnlineDPO"))


class BiasesInReference(Rule):
    """Biases are trained while the reference is the model with its adapters switched off.

    ## What it does

    Reports `bias='all'` or `bias='lora_only'` in the adapter config of a trainer of TRL without a `ref_model`.

    ## Why is this bad?

    TRL computes the reference by switching the adapters off. PEFT trains biases in place, and they stay as they are
    when adapters are off. So the reference moves with the policy, and the penalty that keeps them together is wrong.
    PEFT warns about that once. A model without biases is not affected.

    ## Example

    `DPOTrainer(model, peft_config=LoraConfig(bias='all'))`.

    ## Fix

    Use `bias='none'`.

    ## Fix safety

    Unsafe: fewer parameters are trained.

    ## References

    - https://github.com/huggingface/trl/issues/6975
    """

    meta: ClassVar[Meta] = Meta(
        code="KB541",
        slug="biases-in-reference",
        severity=Severity.WARNING,
        consequence=Consequence.TRAINS_WRONG,
        since="0.1.0",
    )

    def check_source(self, source: SourceFacts, context: TrainingContext) -> Iterator[Violation]:
        """Yield one violation for each such trainer on every path."""
        for call, steps in source.steps_at(Action.TRAINER):
            biases = [_biases(step) for step in steps]
            given = biases[0]
            if call.callee in TRAINERS and given is not None and None not in biases:
                inside = source.code_of(given.span)[:1] in ("'", '"')
                edits = source.replace(given.span, '"none"') if inside and source.dialect == "python" else ()
                yield self.violation(
                    "biases are trained in place, and the reference without adapters has them too",
                    source.at_line(given.whole.line, "bias"),
                    surface=Surface.SOURCE,
                    evidence={"bias": str(given.value)},
                    fix=Fix("train no biases", Safety.UNSAFE if edits else Safety.DISPLAY, edits),
                )


def _biases(step: Step) -> Argument | None:
    """Return the argument that trains biases under a trainer that makes the reference itself; None if there is none."""
    adapters = step.before.adapters
    config = adapters.config if adapters is not None else None
    if not isinstance(config, Call) or config.value("bias") not in ("all", "lora_only") or step.call.gives("ref_model"):
        return None
    arguments = step.call.value("args")
    online = step.call.callee in ("trl.GRPOTrainer", "trl.RLOOTrainer")
    beta = arguments.value("beta", 0.0 if "GRPO" in step.call.callee else 0.05) if isinstance(arguments, Call) else 0.0
    return None if online and (not isinstance(beta, float) or beta == 0) else config.argument("bias")
