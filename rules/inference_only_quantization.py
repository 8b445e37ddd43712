"""Rule KB508: inference-only-quantization."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from kbitlint.rule import Meta, Rule, Unchecked
from kbitlint.upstream.quantization import method_named
from kbitlint.violation import Consequence, Fix, Location, Safety, Severity, Surface, Violation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kbitlint.context import TrainingContext
    from kbitlint.facts.model import ModelFacts
    from kbitlint.facts.trace import TraceFacts


class InferenceOnlyQuantization(Rule):
    """Quantized layers that pass no gradient, or a quantizer that does not support training.

    ## What it does

    Reports quantized layers whose class declares that its kernel has no backward pass. GPTQModel declares it in
    `SUPPORTS_TRAINING`. ExLlama, Marlin, Machete and GEMV kernels are known by name, and so are weights of torchao and
    compressed-tensors that quantize activations too. Also reports models whose quantizer declares that it does not support
    training.

    ## Why is this bad?

    Adapters before such a layer would get their gradient through it. There is none, so the backward pass raises or
    stops. transformers calls torchao's `Int8DynamicActivationInt8WeightConfig` trainable, but the output of its layers
    does not require grad: `element 0 of tensors does not require grad`.

    If every such layer has an adapter, gradients pass through the adapters. All of them then learn, from gradients that
    lack the share of the layers themselves. A traced step that shows this makes it a warning.

    If the quantizer declares it, Trainer raises before the first step: `that quantization method do not support
    training`. A custom loop runs if the kernels have a backward pass, so without a Trainer it is a warning.

    ## Example

    A GPTQ checkpoint that loads with the ExLlama kernel, gpt-oss with its MXFP4 kernels, torchao's 4-bit types.

    ## Fix

    GPTQ and AWQ: `backend="auto_trainable"` with GPTQModel 5 or later. MXFP4 and FP8: `dequantize=True`, with the
    memory of a 16-bit model.

    ## Fix safety

    Display only: the model has to be loaded again.

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
        """Yield one violation for each layer without a backward pass, else at most one for the model."""
        if not model.quantized:
            raise Unchecked("no layer is quantized")
        yield from self._violations(model, context)

    def check_trace(self, trace: TraceFacts, context: TrainingContext) -> Iterator[Violation]:
        """Yield the same violations. A layer is a warning if each adapter gets a gradient in spite of it."""
        if not trace.model.quantized:
            raise Unchecked("no layer is quantized")
        attached = [gradient for gradient in trace.gradients if gradient.adapter and not gradient.virtual]
        yield from self._violations(trace.model, context, around=bool(attached) and all(g.arrives for g in attached))

    def _violations(self, model: ModelFacts, context: TrainingContext, *, around: bool = False) -> Iterator[Violation]:
        stuck = [facts for facts in model.quantized if facts.packing.trains is False]
        for facts in stuck:
            passed = around and method_named(facts.packing.method).cuts
            yield self.violation(
                f"{facts.packing.method} kernel has no backward" + (": gradients pass its adapter alone" if passed else ""),
                Location(facts.path),
                surface=Surface.TRACE if around else Surface.MODEL,
                severity=Severity.WARNING if passed else None,
                consequence=Consequence.TRAINS_WRONG if passed else None,
                evidence={"method": facts.packing.method, "bits": facts.packing.bits},
                fix=Fix(method_named(facts.packing.method).instead, Safety.DISPLAY),
            )
        if model.quantizer_trains is False and not stuck:
            method = model.claims_quantization or model.quantized[0].packing.method
            refused = context.sets_training_mode is True  # True only for Trainer, which asks the quantizer
            yield self.violation(
                f"the quantizer of {method} does not support training" + (", so Trainer refuses the model" if refused else ""),
                Location(),
                severity=Severity.ERROR if refused else Severity.WARNING,
                evidence={"method": method, "layers": len(model.quantized)},
                fix=Fix("load dequantized, or with a method that trains", Safety.DISPLAY),
            )
