"""Rule KB501: nothing-quantized."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from kbitlint.rule import Meta, Rule
from kbitlint.upstream.quantization import QUANTIZATION_CONFIGS
from kbitlint.violation import Consequence, Fix, Location, Safety, Severity, Surface, Violation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kbitlint.context import TrainingContext
    from kbitlint.facts.model import ModelFacts
    from kbitlint.facts.source import SourceFacts


class NothingQuantized(Rule):
    """No layer of the model is quantized.

    ## What it does

    Reports a model in which no layer holds packed weights. Only the tensors count, even if the config or flags of the
    model record a quantization method.

    In a script, reports a quantization config that is never used, if every trained model is loaded without one.

    ## Why is this bad?

    The model takes its full 16 or 32 bits per parameter. The helper functions for k-bit training then do the wrong
    thing too: PEFT's `prepare_model_for_kbit_training` casts every parameter to float32 and enables no checkpointing.

    ## Example

    Falcon with bitsandbytes: its layers are `FalconLinear`, a subclass of `nn.Linear`, which bitsandbytes does not
    replace. Or a quantization config that is not passed to `from_pretrained`.

    ## Fix

    Load with a `quantization_config`. To audit a checkpoint that is quantized at load, pass `--quantize nf4` to
    kbitlint.

    ## Fix safety

    Display only: a loaded model cannot be quantized in place.

    ## References

    - https://github.com/huggingface/peft/issues/1149
    - https://github.com/huggingface/peft/issues/760
    - https://github.com/bitsandbytes-foundation/bitsandbytes/issues/1569
    """

    meta: ClassVar[Meta] = Meta(
        code="KB501",
        slug="nothing-quantized",
        severity=Severity.WARNING,
        consequence=Consequence.COSTS_MEMORY,
        since="0.1.0",
    )

    def check_model(self, model: ModelFacts, context: TrainingContext) -> Iterator[Violation]:
        """Yield at most one violation, on the model as a whole."""
        if model.quantized:
            return
        claim = model.claims_quantization
        message = f"no layer is quantized, although the model is recorded as {claim}" if claim else "no layer is quantized"
        title = "load it with a quantization_config (kbitlint check --quantize nf4 audits it as if)"
        yield self.violation(
            message,
            Location(),
            evidence={"recorded_method": claim, "parameters": model.numel},
            fix=Fix("choose a method that replaces this model's layers" if claim else title, Safety.DISPLAY),
        )

    def check_source(self, source: SourceFacts, context: TrainingContext) -> Iterator[Violation]:
        """Yield one violation for each unused quantization config, if every trained model is unquantized."""
        trained = [model for place in source.trained() for model in place.models]
        if not trained or not all(model.load is not None and model.method is None for model in trained):
            return
        for config in source.calls_of(*(f"transformers.{name}" for name in QUANTIZATION_CONFIGS)):
            name = source.name_of(config)
            if name and source.times(name) == 1:
                yield self.violation(
                    f"{name} is made and never used: the model that is trained is not quantized",
                    source.at(config),
                    surface=Surface.SOURCE,
                    evidence={"config": config.callee},
                    fix=Fix(f"pass quantization_config={name} to from_pretrained", Safety.DISPLAY),
                )
