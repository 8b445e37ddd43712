"""Rule KB550: partitioned-model-saved."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from kbitlint.facts.source import Action
from kbitlint.rule import Meta, Rule
from kbitlint.violation import Consequence, Fix, Safety, Severity, Surface, Violation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kbitlint.context import TrainingContext
    from kbitlint.facts.source import ExecutionPath, SourceFacts, Step

#: functions that gather partitioned parameters, or write them in another way
_GATHERS = ("GatheredParameters", "save_16bit_model", "zero_to_fp32", "convert_zero_checkpoint")


class PartitionedModelSaved(Rule):
    """A model whose parameters DeepSpeed ZeRO-3 has partitioned is saved without gathering them.

    ## What it does

    Reports `save_pretrained` without `state_dict` after a training under ZeRO-3, as the launch or the training arguments set
    it. `Trainer.save_model` gathers, and is not reported.

    ## Why is this bad?

    Under ZeRO-3 each rank holds a part of each parameter, and the parameter itself has size 0. `save_pretrained` writes what it
    finds: an adapter file whose tensors are empty. Nothing fails until the file is loaded.

    ## Example

    `accelerator.unwrap_model(model).save_pretrained("out")` under `accelerate launch --config_file zero3.yaml`.

    ## Fix

    Gather on every rank, and save on the first: `state = accelerator.get_state_dict(model)`, then
    `save_pretrained("out", state_dict=state)`. With Trainer, use `trainer.save_model("out")`.

    ## Fix safety

    Display only: every rank has to take part in the gathering, which is outside of `if accelerator.is_main_process`.

    ## References

    - https://huggingface.co/docs/accelerate/usage_guides/deepspeed#saving-and-loading
    - https://github.com/huggingface/peft/issues/2500
    - https://github.com/huggingface/peft/issues/453
    """

    meta: ClassVar[Meta] = Meta(
        code="KB550",
        slug="partitioned-model-saved",
        severity=Severity.ERROR,
        consequence=Consequence.TRAINS_NOTHING,
        since="0.1.0",
    )

    def check_source(self, source: SourceFacts, context: TrainingContext) -> Iterator[Violation]:
        """Yield one violation for each save of partitioned parameters on every path to it."""
        if any(name in source.text for name in _GATHERS):
            return
        for call, steps in source.steps_at(Action.SAVE):
            if call.callee != "save_pretrained" or not call.complete or call.argument("state_dict") is not None:
                continue
            if sum(_is_partitioned(path, step) for path in source.paths for step in path.steps if step in steps) >= len(steps):
                yield self.violation(
                    "ZeRO-3 has partitioned the parameters: what this saves has size 0",
                    source.at(call),
                    surface=Surface.SOURCE,
                    fix=Fix("pass state_dict=accelerator.get_state_dict(model), or use trainer.save_model", Safety.DISPLAY),
                )


def _is_partitioned(path: ExecutionPath, save: Step) -> bool:
    """Return whether a step saves a model with adapters after its training under ZeRO-3."""
    return save.before.adapters is not None and any(
        training.model_id == save.model_id and training.zero_stage == 3 and training.call.span.start < save.call.span.start
        for training in path.trainings
    )
