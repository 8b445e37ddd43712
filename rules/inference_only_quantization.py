"""KB508."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from kbitlint.rule import Meta, Rule, Unchecked
from kbitlint.upstream.quantization import method_named
from kbitlint.violation import Consequence, Fix, Location, Safety, Severity, Violation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kbitlint.context import TrainingContext
    from kbitlint.facts.model import ModelFacts


class InferenceOnlyQuantization(Rule):
    """The model is quantized in a way that no gradient passes, or that its loader does not train.

    ## What it does

    Reports quantized layers whose class says that its kernel has no backward (GPTQModel's `SUPPORTS_TRAINING`; ExLlama,
    Marlin, Machete and GEMV kernels by name; torchao weights that quantize activations too), and models whose quantizer
    says that it does not support training.

    ## Why is this bad?

    Adapters before such a layer get their gradient through it, and there is none: the backward pass raises or stops.
    transformers calls torchao's `Int8DynamicActivationInt8WeightConfig` trainable; what its layers give does not
    require grad, and the step raises `element 0 of tensors does not require grad`.
    Where the quantizer says so, Trainer raises before the first step, `that quantization method do not support training`;
    a loop of one's own runs as far as the kernels have a backward, so without a Trainer this is a warning.

    ## Example

    A GPTQ checkpoint that loads with the ExLlama kernel, gpt-oss with its MXFP4 kernels, torchao's 4-bit types.

    ## Fix

    GPTQ and AWQ: `backend="auto_trainable"` with GPTQModel 5 or later. MXFP4, FP8: `dequantize=True`, and 16-bit memory.

    ## Fix safety

    Nothing is applied: the model has to be loaded again.

    ## References

    - https://github.com/huggingface/transformers/issues/33361
    - https://github.com/huggingface/transformers/issues/39969
    - https://github.com/axolotl-ai-cloud/axolotl/issues/599
    """

    meta: ClassVar[Meta] = Meta(
        code="KB508",
        slug="inference-only-quantization",
        severity=Severity.ERROR,
        consequence=Consequence.FAILS,
        since="0.1.0",
    )

    def check_model(self, model: ModelFacts, context: TrainingContext) -> Iterator[Violation]:
        """One violation for each layer without a backward, else at most one for the model."""
        if not model.quantized:
            raise Unchecked("no layer is quantized")
        stuck = [facts for facts in model.quantized if facts.packing.trains is False]
        for facts in stuck:
            yield self.violation(
                f"{facts.packing.method} kernel has no backward",
                Location(facts.path),
                evidence={"method": facts.packing.method, "bits": facts.packing.bits},
                fix=Fix(method_named(facts.packing.method).instead, Safety.DISPLAY),
            )
        if model.quantizer_trains is False and not stuck:
            method = model.claims_quantization or model.quantized[0].packing.method
            refused = context.sets_training_mode is True  # known of Trainer only, which asks the quantizer
            yield self.violation(
                f"the quantizer of {method} does not support training" + (", so Trainer refuses the model" if refused else ""),
                Location(),
                severity=Severity.ERROR if refused else Severity.WARNING,
                evidence={"method": method, "layers": len(model.quantized)},
                fix=Fix("load dequantized, or with a method that trains", Safety.DISPLAY),
            )
