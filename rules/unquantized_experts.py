"""KB504."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, ClassVar

from kbitlint.rule import Meta, Option, Rule, Unchecked
from kbitlint.violation import Consequence, Edit, Fix, Location, Safety, Severity, Violation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kbitlint.context import TrainingContext
    from kbitlint.model.facts import ModelFacts, ParameterFacts
    from kbitlint.violation import JSON


#: types that bitsandbytes packs parameters to
FOUR_BITS = ("nf4", "fp4")
#: bytes of statistics for each block of so many weights under double quantization: one, and a float32 for 256 of them
BLOCK, DOUBLE = 64, 1 + 4 / 256


class UnquantizedExperts(Rule):
    """Fused experts of a quantized model that stay in 16 or 32 bits.

    ## What it does

    Reports parameters that stack the matrices of all experts of a layer and are float, while other layers of the model
    are packed, and says which share of the model's parameters is quantized at all.

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

    Packs each stack with bitsandbytes' own `nn.parametrize.replace_parameter_4bit`, in the type of the model's other layers
    and one at a time. Routers and shared experts stay as they are. Whoever reads the parameter gets it unpacked, so
    activate checkpointing: without it every layer keeps its unpacked experts until backward.

    ## Fix safety

    Unsafe: outputs move by the error of 4 bits, as everywhere in a quantized model. `kbitlint.undo` reads the stacks from
    the checkpoint again. Shown only where another parameter is tied to the stack, an adapter already wraps it, it is
    trained, or the model has no 4-bit layers to follow. PEFT 0.21 cannot train `target_parameters` on a packed stack:
    attach adapters to modules. `save_pretrained` needs `save_original_format=False`; adapters are saved as ever.

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
        share, tied = model.quantized_share, {first for _, first in model.tied}
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
                fix=self._fix(bank, model, tied=bank.path in tied),
            )

    @staticmethod
    def _fix(bank: ParameterFacts, model: ModelFacts, *, tied: bool) -> Fix:
        """Packed like most of the model's layers; for display only where those have no type of 4 bits."""
        like = Counter(facts.packing for facts in model.quantized if facts.packing.kind in FOUR_BITS).most_common(1)
        wrapped = any(bank.path.startswith(f"{layer.path}.") for layer in model.adapted)
        trained = bank.requires_grad and model.has_adapters  # a base that was just loaded requires grad everywhere
        if tied or wrapped or trained or not like:
            return Fix("pack them with bitsandbytes.nn.parametrize.replace_parameter_4bit", Safety.DISPLAY)
        packing = like[0][0]
        statistics = DOUBLE if packing.double else 4.0
        saved = bank.nbytes - bank.numel // 2 - int(-(-bank.numel // BLOCK) * statistics)
        arguments: dict[str, JSON] = {"quant_type": packing.kind, "compress_statistics": packing.double}
        edit = Edit("pack-experts", bank.path, arguments, adds_bytes=-saved)
        return Fix(f"pack them to {packing.kind}, one bank at a time", Safety.UNSAFE, (edit,))
