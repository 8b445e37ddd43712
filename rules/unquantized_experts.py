"""KB504."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from kbitlint.rule import Meta, Option, Rule, Unchecked
from kbitlint.violation import Consequence, Fix, Location, Safety, Severity, Violation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kbitlint.context import TrainingContext
    from kbitlint.model.facts import ModelFacts


class UnquantizedExperts(Rule):
    """Fused experts of a quantized model that stay in 16 or 32 bits.

    ## What it does

    Reports parameters that stack the matrices of all experts of a layer (three dimensions) and are float, while other
    layers of the model are packed, and says which share of the model's parameters is quantized at all.

    ## Why is this bad?

    transformers 5 keeps experts as stacked parameters, and bitsandbytes replaces `nn.Linear` only. `load_in_4bit` then
    packs the attention and leaves what the model mostly consists of: of Mixtral-8x7B 2.9 % of the parameters are packed
    and 90 GB stay bfloat16, of DeepSeek-V3 2.3 %. Nothing is printed. Training works, at the memory of a 16-bit model;
    PEFT's `prepare_model_for_kbit_training` doubles even that. A warning where less than half of the model is quantized,
    else worth knowing.

    ## Example

    `AutoModelForCausalLM.from_pretrained("mistralai/Mixtral-8x7B-v0.1", quantization_config=BitsAndBytesConfig(...))` in
    transformers 5.

    ## Fix

    Pack them with `bitsandbytes.nn.parametrize.replace_parameter_4bit`, or load with a method that knows experts.

    ## Fix safety

    Nothing is applied yet.

    ## References

    - https://github.com/bitsandbytes-foundation/bitsandbytes/issues/1849
    - https://github.com/bitsandbytes-foundation/bitsandbytes/pull/1965
    - https://github.com/unslothai/unsloth/issues/4032
    """

    meta: ClassVar[Meta] = Meta(
        code="KB504",
        slug="unquantized-experts",
        severity=Severity.WARNING,
        consequence=Consequence.COSTS_MEMORY,
        since="0.1.0",
    )

    options: ClassVar[tuple[Option, ...]] = (
        Option("warn-below", 0.5, "the share of quantized parameters below which it is a warning, else worth knowing"),
    )

    def check_model(self, model: ModelFacts, context: TrainingContext) -> Iterator[Violation]:
        """One violation for each stack of experts that is not packed."""
        if not model.quantized:
            raise Unchecked("no layer is quantized")
        banks = [p for p in model.parameters if p.bank and not (p.adapter or p.packed)]
        if not banks:
            return
        sizes = [facts.packing.features for facts in model.quantized if facts.packing.features]
        share = sum(fan_in * fan_out for fan_in, fan_out in sizes) / model.numel
        for bank in banks:
            yield self.violation(
                f"fused experts stay {bank.dtype}: {share:.0%} of the model's parameters are quantized",
                Location(bank.path),
                severity=Severity.WARNING if share < self.option("warn-below") else Severity.INFO,
                evidence={
                    "dtype": bank.dtype,
                    "shape": list(bank.shape),
                    "bytes": bank.nbytes,
                    "quantized_share": round(share, 4),
                },
                fix=Fix("pack them with bitsandbytes.nn.parametrize.replace_parameter_4bit", Safety.DISPLAY),
            )
