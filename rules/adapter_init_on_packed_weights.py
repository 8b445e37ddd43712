"""Rule KB620: adapter-init-on-packed-weights."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from kbitlint.rule import Meta, Rule
from kbitlint.violation import Consequence, Fix, Safety, Severity, Surface, Violation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kbitlint.context import TrainingContext
    from kbitlint.facts.model_state import ModelState
    from kbitlint.facts.source import SourceFacts

FOUR = 4
#: initialisations that fail on a 4-bit base with PEFT 0.21; olora, eva, gaussian and False train there
FLOATS = frozenset({"pissa", "corda", "orthogonal", "loftq"})


class AdapterInitOnPackedWeights(Rule):
    """An adapter initialisation that needs float base weights, on a quantized base.

    ## What it does

    Reports `init_lora_weights` set to `pissa`, `corda`, `orthogonal` or `loftq` if bitsandbytes quantizes the base on
    every path. OLoRA, EVA and the Gaussian initialisation work with packed weights and are not reported.

    ## Why is this bad?

    PiSSA and CorDA compute singular vectors of the base weight, and raise a TypeError for packed weights. The
    orthogonal initialisation raises a RuntimeError. LoftQ has no such check: it treats the packed bytes as the matrix.

    With 4-bit weights these bytes are one column, and the first forward pass raises a shape error. With 8-bit weights
    LoftQ decomposes the integers without their scales, and training starts from wrong values. The severity of LoftQ is
    therefore warning with 8-bit weights, and also if the number of bits is unknown.

    ## Example

    `get_peft_model(model_in_4_bits, LoraConfig(init_lora_weights='pissa'))`.

    ## Fix

    Initialise the adapter on the float base, save the residual, and quantize the residual at load. For LoftQ, attach
    the adapter with the default initialisation and call `replace_lora_weights_loftq`.

    ## Fix safety

    Display only: the fix is a different workflow.

    ## References

    - https://github.com/huggingface/transformers/issues/32529
    - https://github.com/huggingface/peft/issues/1405
    - https://github.com/huggingface/peft/issues/1525
    """

    meta: ClassVar[Meta] = Meta(
        code="KB620",
        slug="adapter-init-on-packed-weights",
        severity=Severity.ERROR,
        consequence=Consequence.FAILS,
        since="0.1.0",
    )

    def check_source(self, source: SourceFacts, context: TrainingContext) -> Iterator[Violation]:
        """Yield one violation for each such config that is attached to a quantized base on every path."""
        for config, steps in source.attached():
            argument = config.argument("init_lora_weights")
            method = str(argument.value).partition("_")[0] if argument is not None else ""
            floating = _is_floating if method == "orthogonal" else _keeps_weights
            packed = all(step.before.packed and not floating(step.before) for step in steps)
            if argument is not None and method in FLOATS and packed:
                column = all(step.before.bits == FOUR for step in steps)
                wrong = method == "loftq" and not column
                yield self.violation(
                    f"the {method} initialisation reads the base weights, which are packed",
                    source.at_line(argument.whole.line, "init_lora_weights"),
                    surface=Surface.SOURCE,
                    severity=Severity.WARNING if wrong else Severity.ERROR,
                    consequence=Consequence.TRAINS_WRONG if wrong else None,
                    evidence={"init_lora_weights": argument.value},
                    fix=Fix("initialise on the float base, then quantize what is left of it", Safety.DISPLAY),
                )


def _keeps_weights(model: ModelState) -> bool:
    """Return whether 8-bit layers may keep weights in 16 bits, which they pack in each forward pass."""
    return model.quantization is not None and model.quantization.value("llm_int8_has_fp16_weight") not in (None, False)


def _is_floating(model: ModelState) -> bool:
    """Return whether packed bytes, or weights that 8-bit layers keep, may have a floating-point dtype.

    Orthogonal factors only take on that dtype, which must be able to require grad.
    """
    names = ("bnb_4bit_quant_storage", "llm_int8_has_fp16_weight")
    return model.quantization is None or any(model.quantization.value(name) not in (None, False) for name in names)
