"""KB220."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from kbitlint.rule import Meta, Rule
from kbitlint.source.facts import Loop
from kbitlint.violation import Consequence, Fix, Safety, Severity, Surface, Violation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kbitlint.context import TrainingContext
    from kbitlint.source.facts import SourceFacts


class QuantizedWithoutAdapters(Rule):
    """A Trainer is given a quantized model without adapters.

    ## What it does

    Reports a Trainer whose model is quantized on every path and has no adapters: none were attached, what
    `get_peft_model` returned is not the model that is trained, or `merge_and_unload()` took them away again.

    ## Why is this bad?

    The packed weights cannot be trained, so Trainer refuses: `You cannot perform fine-tuning on purely quantized
    models`.

    ## Example

    `Trainer(model=AutoModelForCausalLM.from_pretrained(name, quantization_config=config), ...)`.

    ## Fix

    Attach adapters: `get_peft_model(model, LoraConfig(...))`, or `peft_config=` where the Trainer takes one.

    ## Fix safety

    Shown only: which adapters is a decision.

    ## References

    - https://github.com/huggingface/transformers/issues/26248
    - https://github.com/huggingface/transformers/issues/27702
    - https://github.com/huggingface/trl/issues/1719
    - https://github.com/unslothai/unsloth/issues/1110
    """

    meta: ClassVar[Meta] = Meta(
        code="KB220",
        slug="quantized-without-adapters",
        severity=Severity.ERROR,
        consequence=Consequence.FAILS,
        since="0.1.0",
    )

    def check_source(self, source: SourceFacts, context: TrainingContext) -> Iterator[Violation]:
        """One violation for each Trainer that refuses its model on every path."""
        for trained in source.trained():
            bare = all(model.adapters is None and model.load is not None for model in trained.models)
            trainer = all(training.loop is Loop.TRAINER for training in trained.paths)
            bitsandbytes = all(model.method == "bitsandbytes" for model in trained.models)
            if bare and trainer and bitsandbytes and trained.certain:
                yield self.violation(
                    "the quantized model has no adapters, and Trainer refuses to train it",
                    source.at(trained.call),
                    surface=Surface.SOURCE,
                    evidence={"bits": trained.models[0].bits},
                    fix=Fix("attach adapters: get_peft_model(model, LoraConfig(...))", Safety.DISPLAY),
                )
