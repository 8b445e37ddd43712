"""Rule KB504: unquantized-experts."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, ClassVar

from kbitlint import lazy_patterns as re
from kbitlint.facts.source import Action
from kbitlint.rule import Meta, Option, Rule, Unchecked
from kbitlint.upstream import families
from kbitlint.upstream.hub_names import stored_quantized
from kbitlint.upstream.versions import number
from kbitlint.violation import Consequence, Edit, Fix, Location, Safety, Severity, Surface, Violation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kbitlint.context import TrainingContext
    from kbitlint.facts.model import ModelFacts, ParameterFacts
    from kbitlint.facts.model_state import ModelState
    from kbitlint.facts.source import SourceFacts
    from kbitlint.violation import JSON


#: the types to which bitsandbytes packs parameters
FOUR_BITS = ("nf4", "fp4")
#: weights in a block, and bytes of its statistics under double quantization: one, and a float32 for 256 blocks
BLOCK, DOUBLE = 64, 1 + 4 / 256
#: a call or a key of axolotl that packs them; the match contains no second ``kbitlint.fix(``, so the search takes linear time
_PACKS = re.compile(r"replace_parameter_4bit|quantize_moe_experts:\s*true|kbitlint\.fix\((?:(?!kbitlint\.fix\().)*unsafe=True")
PARTLY = ("jetmoe", "nemotron_h", "nemotron_h_omni")  # experts are less than half of the parameters


class UnquantizedExperts(Rule):
    """Fused experts of a quantized model that stay in 16 or 32 bits.

    ## What it does

    Reports float parameters that stack the matrices of all experts of a layer, while other layers are packed. In a script,
    reports a bitsandbytes config for a checkpoint whose config.json on this machine, or published name, indicates experts.

    ## Why is this bad?

    transformers 5 stores experts as stacked parameters, and bitsandbytes replaces `nn.Linear` only. `load_in_4bit` silently
    packs the attention only: of Mixtral-8x7B, 2.9 % of the parameters, and 90 GB stay bfloat16. Training needs the memory of a
    16-bit model, and PEFT's preparation doubles that. It is a warning if less than half is quantized, else an info.

    ## Example

    `AutoModelForCausalLM.from_pretrained("mistralai/Mixtral-8x7B-v0.1", quantization_config=BitsAndBytesConfig(...))` in
    transformers 5.

    ## Fix

    The fix packs each stack with bitsandbytes' `nn.parametrize.replace_parameter_4bit`, one at a time, in the type of the
    model's other layers. Routers and shared experts do not change. Reading the parameter unpacks it, so enable checkpointing:
    otherwise every layer keeps its unpacked experts until the backward pass.

    ## Fix safety

    Unsafe: outputs change by the error of 4 bits. `kbitlint.undo` reads the stacks from the checkpoint again. Display only in a
    script, for a tied, adapted or trained stack, or if no 4-bit layer sets the type. PEFT 0.21 cannot train `target_parameters`
    on a packed stack, and `save_pretrained` needs `save_original_format=False`.

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
        """Yield one violation for each stack of experts that is not packed."""
        if not model.quantized:
            raise Unchecked("no layer is quantized")
        banks = [p for p in model.parameters if p.bank and not (p.adapter or p.packed)]
        share, tied = model.quantized_share if banks else 0.0, {first for _, first in model.tied}
        for bank in banks:
            yield self.violation(
                f"fused experts stay {bank.dtype}: {share:.0%} of the model's parameters are quantized",
                Location(bank.path),
                severity=Severity.WARNING if share < self.option("warn-below") else Severity.INFO,
                evidence={"shape": list(bank.shape), "bytes": bank.nbytes, "quantized_share": round(share, 4)},
                fix=self._fix(bank, model, tied=bank.path in tied),
            )

    @staticmethod
    def _fix(bank: ParameterFacts, model: ModelFacts, *, tied: bool) -> Fix:
        """Return the fix that packs the bank like most layers of the model; display only if none has a 4-bit type."""
        like = Counter(facts.packing for facts in model.quantized if facts.packing.kind in FOUR_BITS).most_common(1)
        wrapped = any(bank.path.startswith(f"{layer.path}.") for layer in model.adapted)
        trained = bank.requires_grad and model.has_adapters  # after loading, every float parameter requires grad
        if tied or wrapped or trained or not like:
            return Fix("pack them with bitsandbytes.nn.parametrize.replace_parameter_4bit", Safety.DISPLAY)
        packing = like[0][0]
        statistics = DOUBLE if packing.double else 4.0
        saved = bank.nbytes - bank.numel // 2 - int(-(-bank.numel // BLOCK) * statistics)
        arguments: dict[str, JSON] = {"quant_type": packing.kind, "compress_statistics": packing.double}
        edit = Edit("pack-experts", bank.path, arguments, adds_bytes=-saved)
        return Fix(f"pack them to {packing.kind}, one bank at a time", Safety.UNSAFE, (edit,))

    def check_source(self, source: SourceFacts, context: TrainingContext) -> Iterator[Violation]:
        """Yield one violation for each load of a checkpoint with experts in k bits on every path."""
        if number(source.versions.get("transformers", "5")) < (5,):
            return
        for call, steps in source.steps_at(Action.LOAD):
            argument = call.argument("quantization_config")
            packs = all(step.before.method == "bitsandbytes" and step.before.quantization is not None for step in steps)
            stacked = packs and all(_has_experts(step.before) for step in steps)
            if argument is not None and stacked and _PACKS.search(source.text) is None:
                config = call.within("quantization_config")
                keys = [key for key in config.arguments if key.name.startswith("load_in_")] if config is not None else []
                key = keys[0] if keys and source.dialect != "python" else argument
                yield self.violation(
                    "the experts stay unquantized: transformers 5 stacks them in parameters that bitsandbytes does not pack",
                    source.at_line(key.whole.line, key.name),
                    surface=Surface.SOURCE,
                    evidence={"checkpoint": str(call.value("pretrained_model_name_or_path"))},
                    fix=Fix("pack them with bitsandbytes.nn.parametrize.replace_parameter_4bit", Safety.DISPLAY),
                )


def _has_experts(model: ModelState) -> bool:
    name = model.load.value("pretrained_model_name_or_path") if model.load is not None else None
    if model.named is not None:
        fused = model.named.model_type not in PARTLY and not model.named.remote
        return model.named.experts > 1 and fused
    architecture = families.facts_of(name).architecture if isinstance(name, str) and not stored_quantized(name) else None
    return architecture is not None and bool(architecture.experts) and families.facts_of(name).model_type not in PARTLY
