"""Rule KB547: fresh-adapter-for-inference."""

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

#: calls that bring saved weights into an adapter
_LOADS = ("load_adapter(", "set_peft_model_state_dict(", "load_state_dict(", "resume_from_checkpoint", "load_checkpoint")


class FreshAdapterForInference(Rule):
    """A new adapter is made from the config of a saved one, and its weights are never loaded.

    ## What it does

    Reports `get_peft_model` with a config that `from_pretrained` read from a folder, in a file that does not train the model or
    load weights into it.

    ## Why is this bad?

    `get_peft_model` initialises the adapter: `lora_B` is zero, so the model answers as its base does. The trained weights
    in the folder are not read, and nothing reports it.

    ## Example

    `config = LoraConfig.from_pretrained('out')`, then `model = get_peft_model(model, config)` and `model.generate(...)`.

    ## Fix

    `model = PeftModel.from_pretrained(model, 'out')`.

    ## Fix safety

    Display only.

    ## References

    - https://github.com/huggingface/peft/issues/1443
    - https://huggingface.co/docs/peft/tutorial/peft_model_config
    """

    meta: ClassVar[Meta] = Meta(
        code="KB547",
        slug="fresh-adapter-for-inference",
        severity=Severity.ERROR,
        consequence=Consequence.TRAINS_WRONG,
        since="0.1.0",
    )

    def check_source(self, source: SourceFacts, context: TrainingContext) -> Iterator[Violation]:
        """Yield one violation for each adapter that is made from a saved config and used untrained on every path."""
        if ".generate(" not in source.own_text or any(mark in source.text for mark in _LOADS):
            return
        trained = {training.model_id for path in source.paths for training in path.trainings}
        for call, steps in source.steps_at(Action.ATTACH):
            if call.callee == "peft.get_peft_model" and all(map(_is_saved, steps)):
                if any(step.model_id in trained for step in steps) or "Trainer(" in source.text:
                    continue
                yield self.violation(
                    "the adapter is new: its config is read from a folder, and its weights are not",
                    source.at(call),
                    surface=Surface.SOURCE,
                    fix=Fix("load it with PeftModel.from_pretrained(model, folder)", Safety.DISPLAY),
                )


def _is_saved(step: Step) -> bool:
    """Return whether the config of new adapters is one that ``from_pretrained`` read from a folder."""
    config = step.call.value("peft_config")
    mode = config.argument("inference_mode") if isinstance(config, Call) else None
    return isinstance(config, Call) and mode is not None and mode.span == config.span and step.before.certain
