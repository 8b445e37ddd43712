"""Rule KB629: adapter-type-on-packed-weights."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from kbitlint.rule import Meta, Rule, Unchecked
from kbitlint.violation import Consequence, Fix, Location, Safety, Severity, Surface, Violation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kbitlint.context import TrainingContext
    from kbitlint.facts.model import ModelFacts
    from kbitlint.facts.source import SourceFacts
    from kbitlint.facts.values import Call

FOUR = 4
#: types that raise while they are attached: each type of PEFT 0.21 was attached to nf4 and int8 layers and trained a step
_ATTACHING = ("Delora", "Frod", "Glora", "Psoft", "TinyLora", "OSF")
_SHAPED = ("HRA", "LoHa", "LoKr", "Peanut", "Deft")
NEVER = frozenset(f"peft.{name}Config" for name in (*_ATTACHING, "Supertuning"))
#: types that fail in 4 bits only: they read their shapes from the weight, and only an int8 weight keeps its shape
NOT_IN_4_BITS = frozenset(f"peft.{name}Config" for name in _SHAPED)
#: parameter names of the types that can be attached and raise in the first forward pass
_PARAMETERS = (".hra_u.", ".hada_w", ".lokr_w", ".peanut_", ".supertuning_values.")
_NEVER_PARAMETERS = (".supertuning_values.",)
#: modules that stay unquantized by default: adapters on these alone meet no packed weight
_HEADS = frozenset({"lm_head", "score", "classifier", "qa_outputs", "embed_out", "embed_tokens"})


class AdapterTypeOnPackedWeights(Rule):
    """An adapter type that computes with the base weight itself, on packed layers.

    ## What it does

    Reports LoHa, LoKr, HRA, PEANuT and DEFT on bitsandbytes 4-bit layers. Reports DeLoRA, FRoD, GLoRA, PSOFT, TinyLoRA, OSF and
    Supertuning on 4-bit and 8-bit layers. A script is checked for all of these types. A model is checked for those that can be
    attached: LoHa, LoKr, HRA, PEANuT and Supertuning.

    LoRA, DoRA, AdaLoRA, IA3, OFT, BOFT, VeRA, RandLoRA, FourierFT, MiSS, RoAd, VB-LoRA and prompt learning are not reported:
    they train on packed layers.

    ## Why is this bad?

    A 4-bit weight is stored as one column of bytes. LoHa and similar types derive the shape of their factors from it, and the
    first forward pass raises `mat1 and mat2 shapes cannot be multiplied`. The other types decompose the weight or copy it as a
    parameter. They raise a dtype error while they are attached; Supertuning raises in the first forward pass.

    ## Example

    `get_peft_model(model_in_4_bits, LoHaConfig(target_modules=['q_proj']))`.

    ## Fix

    Use LoRA, or another type that PEFT implements for quantized layers. HRA, LoHa, LoKr, PEANuT and DEFT train in 8 bits.

    ## Fix safety

    Display only: the choice of the adapter type is the user's.

    ## References

    - https://github.com/huggingface/peft/issues/1921
    - https://github.com/huggingface/peft/issues/842
    """

    meta: ClassVar[Meta] = Meta(
        code="KB629",
        slug="adapter-type-on-packed-weights",
        severity=Severity.ERROR,
        consequence=Consequence.FAILS,
        since="0.1.0",
    )

    def check_source(self, source: SourceFacts, context: TrainingContext) -> Iterator[Violation]:
        """Yield one violation for each such config that is attached to a quantized base on every path."""
        for config, steps in source.attached():
            if not _meets_packed(config, steps[0].before.quantization):
                continue
            never = config.callee in NEVER
            bits = {step.before.bits for step in steps}
            packed = all(step.before.packed for step in steps)
            if packed and (never or (config.callee in NOT_IN_4_BITS and bits == {FOUR})):
                yield self.violation(
                    f"{_name(config)} computes with the weights, which are packed",
                    source.at(config),
                    surface=Surface.SOURCE,
                    evidence={"type": _name(config)},
                    fix=_fix(never=never),
                )

    def check_model(self, model: ModelFacts, context: TrainingContext) -> Iterator[Violation]:
        """Yield one violation for each packed layer with a trainable adapter of such a type."""
        if not model.has_adapters:
            raise Unchecked("no adapters are attached yet")
        active = {facts.name for facts in model.adapters if facts.active}
        packed = {facts.path: facts.packing for facts in model.quantized}
        seen: set[str] = set()
        for parameter in model.parameters:
            mark = next((mark for mark in _PARAMETERS if mark in parameter.path), None)
            if mark is None or not parameter.requires_grad or parameter.adapter_name not in active:
                continue
            layer = parameter.path.partition(mark)[0]
            packing = packed.get(f"{layer}.base_layer")
            never = mark in _NEVER_PARAMETERS
            meets = packing is not None and packing.method == "bitsandbytes" and (never or packing.bits == FOUR)
            if packing is not None and meets and layer not in seen:
                seen.add(layer)
                yield self.violation(
                    "the adapter computes with the weight of the layer, which is packed",
                    Location(layer),
                    evidence={"parameter": mark.strip("."), "bits": packing.bits},
                    fix=_fix(never=never),
                )


def _meets_packed(config: Call, quantization: Call | None) -> bool:
    """Return whether the adapters target a packed layer, judged by names: a list of heads alone does not."""
    targets = config.value("target_modules")
    left_out = quantization.value("llm_int8_skip_modules") if quantization is not None else None
    unpacked = _HEADS | set(left_out if isinstance(left_out, tuple) else ())
    return not isinstance(targets, tuple) or not set(targets) <= unpacked


def _name(config: Call) -> str:
    return config.callee.rpartition(".")[2].removesuffix("Config")


def _fix(*, never: bool) -> Fix:
    return Fix("use LoRA" if never else "use LoRA, or load in 8 bits", Safety.DISPLAY)
