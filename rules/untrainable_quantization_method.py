"""KB524."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from kbitlint.rule import Meta, Rule
from kbitlint.source.facts import Loop
from kbitlint.violation import Consequence, Fix, Location, Safety, Severity, Surface, Violation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kbitlint.context import TrainingContext
    from kbitlint.files.checkpoint import CheckpointFacts
    from kbitlint.source.facts import SourceFacts

#: HfQuantizer.is_trainable is False for these, whatever their arguments (transformers/quantizers)
UNTRAINABLE = frozenset({"auto-round", "fbgemm_fp8", "higgs", "mxfp4", "nvfp4", "quark", "spqr", "vptq"})


class UntrainableQuantizationMethod(Rule):
    """A quantization method that transformers cannot train through.

    ## What it does

    Reports checkpoints whose `quantization_config`, and scripts whose quantization config, names a method that
    declares itself untrainable in transformers 5.23: auto-round, fbgemm_fp8, higgs, nvfp4, quark, spqr, vptq and
    mxfp4, unless it is dequantized at load.

    ## Why is this bad?

    Trainer refuses such a model: `that quantization method do not support training`. A loop of one's own fails in the
    backward pass or has none, because the kernels are made for inference. mxfp4 is dequantized silently where its
    kernels are missing, which makes it plain 16-bit LoRA: a warning.

    ## Example

    `AutoModelForCausalLM.from_pretrained(name, quantization_config=Mxfp4Config())` followed by a Trainer.

    ## Fix

    Load the unquantized checkpoint and quantize it with a method that trains, or dequantize at load.

    ## Fix safety

    Shown only.

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
        """One violation for each place that trains such a model on every path."""
        for trained in source.trained():
            methods = {model.method for model in trained.models}
            method = next(iter(methods))
            config = trained.models[0].quantization
            refused = trained.paths[0].loop is Loop.TRAINER
            spared = config is not None and config.value("dequantize", unset=False) is not False
            if len(methods) == 1 and isinstance(method, str) and method in UNTRAINABLE and not spared:
                yield self.violation(
                    f"{method} cannot be trained through",
                    source.at(trained.call),
                    surface=Surface.SOURCE,
                    severity=Severity.ERROR if refused and method != "mxfp4" else Severity.WARNING,
                    consequence=None if refused and method != "mxfp4" else Consequence.FRAGILE,
                    evidence={"method": method},
                    fix=Fix("quantize the unquantized checkpoint with a method that trains", Safety.DISPLAY),
                )

    def check_files(self, checkpoint: CheckpointFacts, context: TrainingContext) -> Iterator[Violation]:
        """At most one violation, on the key of config.json."""
        method = (checkpoint.quantization or {}).get("quant_method")
        if isinstance(method, str) and method in UNTRAINABLE:
            yield self.violation(
                f"{method} cannot be trained through",
                Location("quantization_config.quant_method", "config.json"),
                surface=Surface.FILES,
                severity=Severity.WARNING if method == "mxfp4" else Severity.ERROR,
                consequence=Consequence.COSTS_MEMORY if method == "mxfp4" else None,
                evidence={"method": method},
                fix=Fix("quantize the unquantized checkpoint with a method that trains", Safety.DISPLAY),
            )
