"""Rule KB524: untrainable-quantization-method."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

from kbitlint.facts.source import Action
from kbitlint.facts.training import Loop
from kbitlint.facts.values import UNKNOWN
from kbitlint.rule import Meta, Rule
from kbitlint.upstream.quantization import method_named
from kbitlint.upstream.trainability import machine_decides, why_unread, why_untrainable
from kbitlint.violation import Consequence, Fix, Location, Safety, Severity, Surface, Violation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kbitlint.context import TrainingContext
    from kbitlint.facts.checkpoint import CheckpointFacts
    from kbitlint.facts.model_state import ModelState
    from kbitlint.facts.source import SourceFacts

TITLE = "quantize the unquantized checkpoint with a method that trains"


def _asked(model: ModelState) -> str | None:
    """Return why a model that a script loads does not train; None if it does or that is not known."""
    config = model.quantization
    if not model.certain:
        return None
    if config is None:
        return why_untrainable(model.method, lambda _: UNKNOWN, None)
    layout = config.within("quant_type")
    if config.value("dequantize", unset=False) is not False:
        return None
    return why_untrainable(model.method, config.value, layout.callee.rpartition(".")[2] if layout is not None else None)


class UntrainableQuantizationMethod(Rule):
    """A quantization method that transformers cannot train through.

    ## What it does

    Reports checkpoints and scripts whose quantization config names a method that transformers 5.23 declares untrainable:
    auto-round, fbgemm_fp8, gemma, higgs, nvfp4, quark, spqr, vptq, and gguf, metal and mxfp4 unless they are dequantized at
    load. It also reports torchao with weights of other than 8 bits, and bitnet, fouroversix and fp_quant without the arguments
    that make them train, and compressed-tensors with `use_optimized_inference`. So are checkpoints that transformers does not
    read: exl2, exl3, modelopt, MLX, and a `quantization_config` without `quant_method`.

    ## Why is this bad?

    Trainer refuses such a model: `that quantization method do not support training`. A custom loop fails in the backward pass
    or has none, because the kernels are made for inference: a warning. transformers dequantizes gguf, metal and mxfp4 silently
    if their kernels are missing, which makes the run plain 16-bit LoRA: also a warning.

    ## Example

    `AutoModelForCausalLM.from_pretrained(name, quantization_config=Mxfp4Config())` followed by a Trainer.

    ## Fix

    Load the unquantized checkpoint and quantize it with a method that trains, or dequantize at load.

    ## Fix safety

    Display only: the model has to be loaded again.

    ## References

    - https://github.com/huggingface/transformers/issues/33361
    - https://github.com/huggingface/transformers/issues/26248
    - https://github.com/huggingface/transformers/issues/39969
    """

    meta: ClassVar[Meta] = Meta(
        code="KB524",
        slug="untrainable-quantization-method",
        severity=Severity.ERROR,
        consequence=Consequence.FAILS,
        since="0.1.0",
    )

    def check_source(self, source: SourceFacts, context: TrainingContext) -> Iterator[Violation]:
        """Yield one violation for each Trainer, or loop of the file, that receives such a model on every path."""
        own = (trained for trained in source.trained() if trained.paths[0].loop is Loop.OWN)
        # only Trainer refuses a method that depends on an argument: some of these compute on unpacked weights
        named = (trained for trained in own if not method_named(trained.models[0].method).trains)
        given = [(trained.call, trained.models, Consequence.FRAGILE) for trained in named]
        for call, steps in source.steps_at(Action.TRAINER):
            given.append((call, tuple(step.before for step in steps), Consequence.FAILS))
        for call, models, consequence in given:
            reasons = {_asked(model) for model in models}
            reason = next(iter(reasons), None)
            if len(reasons) == 1 and reason is not None:
                fails = consequence is Consequence.FAILS and not machine_decides(models[0].method)
                yield self.violation(
                    reason,
                    source.at(call),
                    surface=Surface.SOURCE,
                    severity=Severity.ERROR if fails else Severity.WARNING,
                    consequence=None if fails else Consequence.FRAGILE,
                    evidence={"method": models[0].method},
                    fix=Fix(TITLE, Safety.DISPLAY),
                )

    def check_files(self, checkpoint: CheckpointFacts, context: TrainingContext) -> Iterator[Violation]:
        """Yield at most one violation, on the key of config.json."""
        quantization = checkpoint.quantization or {}
        method, layout = quantization.get("quant_method"), quantization.get("quant_type")
        kind = layout.get("default") if isinstance(layout, Mapping) else None
        dense = quantization.get("dequantize") is True
        reason = why_untrainable(method, quantization.get, kind.get("_type") if isinstance(kind, Mapping) else None)
        reason = why_unread(checkpoint.config or {}) or (None if dense else reason)
        if reason is not None:
            yield self.violation(
                reason,
                Location("quantization_config.quant_method" if method else "quantization_config", "config.json"),
                surface=Surface.FILES,
                severity=Severity.WARNING if machine_decides(method) else Severity.ERROR,
                consequence=Consequence.COSTS_MEMORY if machine_decides(method) else None,
                evidence={"method": method},
                fix=Fix(TITLE, Safety.DISPLAY),
            )
