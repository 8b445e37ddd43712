"""KB526."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from kbitlint.rule import Meta, Rule
from kbitlint.source.facts import Action
from kbitlint.violation import Consequence, Fix, Safety, Severity, Surface, Violation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kbitlint.context import TrainingContext
    from kbitlint.source.facts import SourceFacts


class OverruledQuantizationConfig(Rule):
    """A quantization config is passed for a checkpoint that is quantized as it is stored.

    ## What it does

    Reports `quantization_config=` in the load of a checkpoint whose config.json, in its folder or in the Hub's local
    cache, has a `quantization_config` of its own. Checkpoints that are not on this machine are not judged.

    ## Why is this bad?

    transformers keeps the checkpoint's config and only warns: the compute dtype, the list of skipped modules and even
    the number of bits that are passed have no effect. Asking a 4-bit checkpoint for 8 bits gives 4-bit layers.

    ## Example

    `from_pretrained('unsloth/llama-3-8b-bnb-4bit', quantization_config=BitsAndBytesConfig(load_in_8bit=True))`.

    ## Fix

    Leave the config out, or load the checkpoint that is not quantized.

    ## Fix safety

    Shown only: either may be meant.

    ## References

    - https://github.com/huggingface/transformers/issues/47378
    - https://github.com/huggingface/transformers/issues/25901
    - https://github.com/unslothai/unsloth/issues/39
    """

    meta: ClassVar[Meta] = Meta(
        code="KB526",
        slug="overruled-quantization-config",
        severity=Severity.WARNING,
        consequence=Consequence.TRAINS_WRONG,
        since="0.1.0",
    )

    def check_source(self, source: SourceFacts, context: TrainingContext) -> Iterator[Violation]:
        """One violation for each config that the checkpoint's own overrules on every path."""
        for call, steps in source.steps_at(Action.LOAD):
            argument = call.argument("quantization_config")
            asked = all(step.call.within("quantization_config") is not None for step in steps)
            if argument is not None and asked and all(isinstance(step.detail, str) for step in steps):
                yield self.violation(
                    f"the checkpoint is stored quantized ({steps[0].detail}), and its config wins over the one that is passed",
                    source.at_line(argument.whole.line, "quantization_config"),
                    surface=Surface.SOURCE,
                    evidence={"stored": steps[0].detail},
                    fix=Fix("leave the config out, or load the unquantized checkpoint", Safety.DISPLAY),
                )
