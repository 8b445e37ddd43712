"""Rule KB704: unshardable-weight."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from kbitlint.context import Strategy
from kbitlint.rule import Meta, Rule
from kbitlint.violation import Consequence, Fix, Location, Safety, Severity, Violation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kbitlint.context import TrainingContext
    from kbitlint.facts.model import ModelFacts


class UnshardableWeight(Rule):
    """Packed weights that FSDP cannot shard because they are stored as integers.

    ## What it does

    Reports quantized layers whose weight has an integer dtype, if the run uses FSDP. FSDP1 takes none of them. FSDP2
    fails on bitsandbytes int8, and keeps 4-bit weights whole on every rank: a warning.

    ## Why is this bad?

    FSDP1 raises `Cannot flatten integer dtype tensors`. FSDP2 separates an int8 weight from its scales, and the forward
    pass raises `'Parameter' object has no attribute 'CB'`. accelerate leaves uint8 4-bit weights out of FSDP2's shards,
    with a log line. The memory of the base then does not go down with more ranks.

    ## Example

    `BitsAndBytesConfig(load_in_4bit=True)`, whose `bnb_4bit_quant_storage` is uint8, under FSDP.

    ## Fix

    For 4 bits, set `bnb_4bit_quant_storage=torch.bfloat16` when the model is quantized. For 8 bits, use DDP.

    ## Fix safety

    Display only: the weights have to be quantized again.

    ## References

    - https://github.com/bitsandbytes-foundation/bitsandbytes/issues/1709
    - https://github.com/huggingface/accelerate/pull/3987
    - https://github.com/huggingface/trl/issues/1723
    """

    meta: ClassVar[Meta] = Meta(
        code="KB704",
        slug="unshardable-weight",
        severity=Severity.ERROR,
        consequence=Consequence.FAILS,
        since="0.1.0",
    )
    needs_strategy: ClassVar[bool] = True

    def check_model(self, model: ModelFacts, context: TrainingContext) -> Iterator[Violation]:
        """Yield one violation for each quantized layer with an integer weight."""
        if context.strategy not in (Strategy.FSDP1, Strategy.FSDP2):
            return
        weights = {p.module: p for p in model.parameters if p.packed and not p.floating}
        four_bit_fix = Fix("quantize with bnb_4bit_quant_storage in the dtype of the model", Safety.DISPLAY)
        for layer in model.quantized:
            weight, packing = weights.get(layer.path), layer.packing
            if weight is None:
                continue
            bits = packing.bits if packing.method == "bitsandbytes" else None
            evidence = {"dtype": weight.dtype, "bytes": weight.nbytes, "method": packing.method}
            fix = four_bit_fix if bits == 4 else Fix("train with DDP", Safety.DISPLAY)
            if context.strategy is Strategy.FSDP1:
                message = f"FSDP1 cannot flatten {weight.dtype} weights"
                yield self.violation(message, Location(layer.path), evidence=evidence, fix=fix)
            elif bits == 8:
                message = "FSDP2 splits 8-bit weights from their scales"
                yield self.violation(message, Location(layer.path), evidence=evidence, fix=fix)
            elif bits == 4:
                yield self.violation(
                    f"every rank holds the whole weight: FSDP2 leaves {weight.dtype} weights out of its shards",
                    Location(layer.path),
                    severity=Severity.WARNING,
                    consequence=Consequence.COSTS_MEMORY,
                    evidence=evidence,
                    fix=fix,
                )
