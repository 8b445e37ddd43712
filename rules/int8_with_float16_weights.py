"""Rule KB525: int8-with-float16-weights."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from kbitlint.rule import Meta, Rule
from kbitlint.violation import Consequence, Edit, Fix, Location, Safety, Severity, Surface, Violation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kbitlint.context import TrainingContext
    from kbitlint.facts.checkpoint import CheckpointFacts
    from kbitlint.facts.source import SourceFacts

KEY = "quantization_config.llm_int8_has_fp16_weight"
OFF = Edit("set-json-key", "config.json", {"key": KEY, "value": False})


class Int8WithFloat16Weights(Rule):
    """Layers of 8 bits that keep their weights in 16 bits.

    ## What it does

    Reports `llm_int8_has_fp16_weight=True` together with `load_in_8bit=True`, in a `BitsAndBytesConfig` and in the
    `quantization_config` of config.json.

    ## Why is this bad?

    The flag is meant for training int8 models from scratch. The weights stay in 16 bits, so no memory is saved, and
    `prepare_model_for_kbit_training` doubles them to float32.

    ## Example

    `BitsAndBytesConfig(load_in_8bit=True, llm_int8_has_fp16_weight=True)`.

    ## Fix

    Set the flag to False, its default.

    ## Fix safety

    Unsafe: the weights are quantized for the first time, so the model computes other values.

    ## References

    - https://github.com/Lightning-AI/lit-llama/issues/121
    - https://github.com/huggingface/peft/issues/1149
    """

    meta: ClassVar[Meta] = Meta(
        code="KB525",
        slug="int8-with-float16-weights",
        severity=Severity.WARNING,
        consequence=Consequence.COSTS_MEMORY,
        since="0.1.0",
    )

    def check_source(self, source: SourceFacts, context: TrainingContext) -> Iterator[Violation]:
        """Yield one violation for each 8-bit config with the flag."""
        for call in source.calls_of("transformers.BitsAndBytesConfig"):
            argument = call.argument("llm_int8_has_fp16_weight")
            if argument is not None and argument.value is True and call.value("load_in_8bit") is True:
                yield self.violation(
                    "8-bit layers keep their weights in 16 bits",
                    source.at_line(argument.whole.line, "llm_int8_has_fp16_weight"),
                    surface=Surface.SOURCE,
                    fix=Fix("quantize the weights", Safety.UNSAFE, source.set_value(call, argument.name, value=False)),
                )

    def check_files(self, checkpoint: CheckpointFacts, context: TrainingContext) -> Iterator[Violation]:
        """Yield at most one violation, on the key of config.json."""
        quantization = checkpoint.quantization or {}
        if quantization.get("llm_int8_has_fp16_weight") is True and quantization.get("load_in_8bit") is True:
            yield self.violation(
                "8-bit layers keep their weights in 16 bits",
                Location(KEY, "config.json"),
                surface=Surface.FILES,
                fix=Fix("quantize the weights", Safety.UNSAFE, (OFF,)),
            )
