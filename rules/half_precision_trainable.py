"""Rule KB105: half-precision-trainable."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from kbitlint.facts.training import Loop
from kbitlint.rule import Meta, Rule, Unchecked
from kbitlint.violation import Consequence, Edit, Fix, Location, Safety, Severity, Surface, Violation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kbitlint.context import TrainingContext
    from kbitlint.facts.model import ModelFacts, ParameterFacts
    from kbitlint.facts.source import SourceFacts
    from kbitlint.facts.values import Call


class HalfPrecisionTrainable(Rule):
    """Trainable adapter parameters that are stored in half precision.

    ## What it does

    Reports adapter parameters that require grad and are float16 or bfloat16. bfloat16 is not reported under FSDP and
    ZeRO-3, which need one dtype in each unit. In a script: a loop of its own without a GradScaler that steps float16
    adapters with Adam or AdamW of torch and their usual eps.

    ## Why is this bad?

    In float16, a GradScaler raises `Attempting to unscale FP16 gradients`: an error if the run is known to use one.
    Without a GradScaler it is a warning: torch's AdamW (`fused=False`) turns the parameters NaN in the first step.
    `lora_A` starts with a gradient of exactly zero, and the epsilon of 1e-8 is zero in float16 as well.

    In bfloat16 the range is safe and the step runs, on the CPU with a GradScaler too. Updates below 1/256 of a weight
    are rounded away, so it is an info.

    ## Example

    `get_peft_model(model, config).half()`, which bypasses the check of transformers, or `autocast_adapter_dtype=False`.

    ## Fix

    Store adapters in float32. PEFT's layers cast their input to float32 and the result back.

    ## Fix safety

    Safe for LoRA, whose layers cast their input and restore the dtype of the result. Display only for copies in
    `modules_to_save`, IA3 and prompt encoders, which use half-precision tensors without a cast.

    ## References

    - https://github.com/huggingface/peft/issues/341
    - https://github.com/huggingface/transformers/issues/23165
    - https://github.com/huggingface/transformers/issues/38717
    """

    meta: ClassVar[Meta] = Meta(
        code="KB105",
        slug="half-precision-trainable",
        severity=Severity.WARNING,
        consequence=Consequence.UNSTABLE,
        since="0.1.0",
    )

    def check_model(self, model: ModelFacts, context: TrainingContext) -> Iterator[Violation]:
        """Yield one violation for each adapter parameter in half precision."""
        if not model.has_adapters:
            raise Unchecked("no adapters are attached yet")
        for parameter in model.trainable:
            if not parameter.adapter or parameter.dtype not in ("float16", "bfloat16"):
                continue
            if parameter.dtype == "bfloat16" and (context.shards_parameters or parameter.least * 2.0**-9 >= 2e-4):
                continue  # one that no step changes is KB307's
            message, severity, consequence = self._verdict(parameter.dtype, context)
            yield self.violation(
                message,
                Location(parameter.path),
                severity=severity,
                consequence=consequence,
                evidence={"dtype": parameter.dtype, "grad_scaler": context.grad_scaler, "optimizer": context.optimizer},
                fix=self._fix(parameter),
            )

    def check_source(self, source: SourceFacts, context: TrainingContext) -> Iterator[Violation]:
        """Yield one violation for each loop of the file that steps float16 adapters with AdamW, on every path."""
        optimizers = [call for call in source.calls if call.callee.rpartition(".")[2] in ("Adam", "AdamW")]
        divides = optimizers and all(_divides_by_zero(call) for call in optimizers)
        for trained in source.trained():
            float16 = all(model.adapters is not None and model.adapters.dtype == "float16" for model in trained.models)
            alone = all(one.loop is Loop.OWN and one.fp16 is False for one in trained.paths)
            if divides and float16 and alone and trained.certain:
                yield self.violation(
                    f"the adapters are float16{trained.where}: AdamW's eps is zero in it, so the first step makes them NaN",
                    source.at(optimizers[0]),
                    surface=Surface.SOURCE,
                    severity=Severity.ERROR,
                    consequence=Consequence.TRAINS_NOTHING,
                    evidence={"adapter_dtype": "float16", "optimizer": optimizers[0].callee},
                    fix=Fix("keep the adapters in float32, and compute under autocast", Safety.DISPLAY),
                )

    @staticmethod
    def _verdict(dtype: str, context: TrainingContext) -> tuple[str, Severity, Consequence]:
        if dtype == "bfloat16":
            return "adapter is bfloat16: small updates are rounded away", Severity.INFO, Consequence.UNSTABLE
        if context.grad_scaler:
            return "adapter is float16, which the GradScaler refuses", Severity.ERROR, Consequence.FAILS
        return "adapter is float16: AdamW's epsilon is zero in it", Severity.WARNING, Consequence.UNSTABLE

    @staticmethod
    def _fix(parameter: ParameterFacts) -> Fix:
        if ".lora_" not in parameter.path:
            return Fix("keep what is trained in float32", Safety.DISPLAY)
        edit = Edit("widen-parameter", parameter.path, {"dtype": "float32"}, adds_bytes=parameter.nbytes)
        return Fix("keep the adapter in float32", Safety.SAFE, (edit,))


def _divides_by_zero(optimizer: Call) -> bool:
    """Return whether torch's Adam or AdamW adds its usual eps in the dtype of the parameters."""
    return optimizer.callee.startswith("torch.") and not optimizer.gives("eps") and not optimizer.gives("fused")
