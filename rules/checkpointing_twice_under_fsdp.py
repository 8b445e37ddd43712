"""KB724."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from kbitlint.rule import Meta, Rule
from kbitlint.source.frameworks import TRAINING_ARGUMENTS
from kbitlint.violation import Consequence, Fix, Safety, Severity, Surface, Violation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kbitlint.context import TrainingContext
    from kbitlint.source.facts import SourceFacts

KEYS = ("activation_checkpointing", "fsdp_activation_checkpointing")


class CheckpointingTwiceUnderFsdp(Rule):
    """Both FSDP and the training arguments checkpoint the layers.

    ## What it does

    Reports `gradient_checkpointing=True` together with `activation_checkpointing` in the `fsdp_config` of the same
    arguments.

    ## Why is this bad?

    Two wrappers recompute the same layers, and each recomputation gathers the shards of the weights again. Trainer
    only logs a warning.

    ## Example

    `TrainingArguments(fsdp='full_shard', gradient_checkpointing=True, fsdp_config={'activation_checkpointing':
    True})`.

    ## Fix

    Keep FSDP's own.

    ## Fix safety

    Safe: the layers are still checkpointed once, with the same values.

    ## References

    - https://github.com/huggingface/transformers/issues/31578
    - https://github.com/huggingface/transformers/issues/25771
    - https://github.com/huggingface/peft/issues/2111
    """

    meta: ClassVar[Meta] = Meta(
        code="KB724",
        slug="checkpointing-twice-under-fsdp",
        severity=Severity.WARNING,
        consequence=Consequence.COSTS_TIME,
        since="0.1.0",
    )

    def check_source(self, source: SourceFacts, context: TrainingContext) -> Iterator[Violation]:
        """One violation for each set of training arguments with both."""
        for call in source.calls_of(*TRAINING_ARGUMENTS):
            config = call.within("fsdp_config")
            for name in ("gradient_checkpointing", "activation_checkpointing"):
                both = config is not None and any(config.value(key) is True for key in KEYS)
                if both and call.value(name) is True:
                    yield self.violation(
                        "the layers are checkpointed by FSDP and by the training arguments",
                        source.at(call),
                        surface=Surface.SOURCE,
                        evidence={"argument": name},
                        fix=Fix("leave it to FSDP", Safety.SAFE, source.set_value(call, name, value=False)),
                    )
