"""Rule KB724: checkpointing-twice-under-fsdp."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from kbitlint.context import Strategy
from kbitlint.facts.source import Action
from kbitlint.rule import Meta, Rule
from kbitlint.upstream.calls import TRAINING_ARGUMENTS
from kbitlint.violation import Consequence, Fix, Location, Safety, Severity, Surface, Violation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kbitlint.context import TrainingContext
    from kbitlint.facts.model import ModelFacts
    from kbitlint.facts.source import SourceFacts

KEYS = ("activation_checkpointing", "fsdp_activation_checkpointing")


class CheckpointingTwiceUnderFsdp(Rule):
    """Both FSDP and the training arguments checkpoint the layers.

    ## What it does

    Reports training arguments with `gradient_checkpointing=True` and with `activation_checkpointing` in their
    `fsdp_config`.

    Also reports a model whose layers checkpoint in a run whose FSDP wraps them in checkpoints too. It is an error if
    the arguments of a Trainer enable checkpointing, and a warning otherwise.

    ## Why is this bad?

    Trainer raises before the first step: "can't both be set to True" (transformers 5.23; the text of 4.57 differs). A
    custom loop recomputes no layer twice, but it gathers the shards of its weights once more.

    ## Example

    `TrainingArguments(fsdp='full_shard', gradient_checkpointing=True, fsdp_config={'activation_checkpointing':
    True})`.

    ## Fix

    Keep the checkpointing of FSDP, and set `gradient_checkpointing=False`.

    ## Fix safety

    Safe in a script: the layers are still checkpointed once, with the same values. Display only for a model.

    ## References

    - https://github.com/huggingface/transformers/issues/31578
    - https://github.com/huggingface/transformers/issues/25771
    - https://github.com/huggingface/peft/issues/2111
    """

    meta: ClassVar[Meta] = Meta(
        code="KB724",
        slug="checkpointing-twice-under-fsdp",
        severity=Severity.ERROR,
        consequence=Consequence.FAILS,
        since="0.1.0",
    )
    needs_strategy: ClassVar[bool] = True

    def check_model(self, model: ModelFacts, context: TrainingContext) -> Iterator[Violation]:
        """Yield at most one violation, on the model as a whole."""
        sharded = context.strategy in (Strategy.FSDP1, Strategy.FSDP2)
        loop = context.gradient_checkpointing
        by_loop = loop is not None and loop.enabled
        layers = [layer.path for layer in model.checkpointing]
        if sharded and context.fsdp_checkpointing and (by_loop or layers):
            refused = by_loop and context.sets_training_mode is True
            yield self.violation(
                f"the layers are checkpointed by FSDP and by the {'training arguments' if by_loop else 'model'}",
                Location(),
                severity=Severity.ERROR if refused else Severity.WARNING,
                consequence=None if refused else Consequence.COSTS_TIME,
                evidence={"layers": len(layers), "training_arguments": by_loop},
                fix=Fix("leave it to FSDP", Safety.DISPLAY),
            )

    def check_source(self, source: SourceFacts, context: TrainingContext) -> Iterator[Violation]:
        """Yield one violation for each call of training arguments that enables both."""
        for call in source.calls_of(*TRAINING_ARGUMENTS):
            config = call.within("fsdp_config")
            for name in ("gradient_checkpointing", "activation_checkpointing"):
                both = config is not None and any(config.value(key) is True for key in KEYS)
                if both and call.value(name) is True:
                    given = call.argument(name)
                    line = given.whole.line if given is not None and source.dialect != "python" else call.span.line
                    yield self.violation(
                        "the layers are checkpointed by FSDP and by the training arguments",
                        source.at(call) if line == call.span.line else source.at_line(line, name),
                        surface=Surface.SOURCE,
                        evidence={"argument": name},
                        fix=Fix("leave it to FSDP", Safety.SAFE, source.set_value(call, name, value=False)),
                    )
        for call, steps in source.steps_at(Action.CONTEXT):
            twice = all(step.before.checkpointing.enabled and step.before.certain for step in steps)
            if twice and all(step.detail == "activation checkpointing" for step in steps):
                yield self.violation(
                    "the layers are checkpointed by the model and by activation wrappers",
                    source.at(call),
                    surface=Surface.SOURCE,
                    severity=Severity.WARNING,
                    consequence=Consequence.COSTS_TIME,
                    evidence={"argument": "apply_activation_checkpointing"},
                    fix=Fix("leave it to the wrappers", Safety.DISPLAY),
                )
