"""Rule KB540: packed-base-in-engine."""

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

TRAINERS = tuple(f"trl.{name}Trainer" for name in ("GRPO", "RLOO", "OnlineDPO", "GKD", "Distillation"))


class PackedBaseInEngine(Rule):
    """A packed base is synchronised to an inference engine that generates for the training.

    ## What it does

    Reports `use_vllm=True` for a trainer of TRL whose model is quantized.

    ## Why is this bad?

    Before each generation TRL merges the adapters into the base, and sends every weight to vLLM. The base is packed:
    the merge rounds the adapters away, and the tensors that are sent are bytes in a shape that the engine's unquantized
    layers do not have. The engine fails, or generates from other weights than those that are trained.

    ## Example

    `GRPOTrainer(model, args=GRPOConfig(use_vllm=True), peft_config=LoraConfig(...))` on a 4-bit model.

    ## Fix

    Load the base in bfloat16, or generate without vLLM.

    ## Fix safety

    Display only: both change memory and speed.

    ## References

    - https://github.com/huggingface/trl/issues/3654
    - https://github.com/huggingface/trl/issues/4973
    """

    meta: ClassVar[Meta] = Meta(
        code="KB540",
        slug="packed-base-in-engine",
        severity=Severity.ERROR,
        consequence=Consequence.TRAINS_WRONG,
        since="0.1.0",
    )

    def check_source(self, source: SourceFacts, context: TrainingContext) -> Iterator[Violation]:
        """Yield one violation for each such trainer of a quantized model on every path."""
        for call, steps in source.steps_at(Action.TRAINER):
            arguments = [step.call.value("args") for step in steps]
            asked = all(isinstance(one, Call) and one.value("use_vllm") is True for one in arguments)
            loads = [step.before.load for step in steps]
            own = any(load is not None and load.callee.startswith("unsloth.") for load in loads)  # it has its own engine
            if call.callee in TRAINERS and asked and not own and all(step.before.kbit for step in steps):
                given = arguments[0].argument("use_vllm") if isinstance(arguments[0], Call) else None
                yield self.violation(
                    "packed weights are sent to vLLM, whose layers are not quantized",
                    source.at(call) if given is None else source.at_line(given.whole.line, "use_vllm"),
                    surface=Surface.SOURCE,
                    evidence={"method": steps[0].before.method},
                    fix=Fix("load the base in bfloat16, or set use_vllm=False", Safety.DISPLAY),
                )
