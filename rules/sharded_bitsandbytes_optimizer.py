"""KB709."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, ClassVar

from kbitlint.context import Strategy
from kbitlint.rule import Meta, Rule, Unstated
from kbitlint.violation import Consequence, Fix, Location, Safety, Severity, Violation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kbitlint.context import TrainingContext
    from kbitlint.model.facts import ModelFacts

#: what TrainingArguments.optim calls them (transformers.training_args.OptimizerNames); ``adamw_torch_8bit`` is torchao's
_BITSANDBYTES = re.compile(r"paged_\w+|ademamix\w*|lion_\w+|(adamw|rmsprop)_(bnb\w*|8bit)")


class ShardedBitsandbytesOptimizer(Rule):
    """An optimizer of bitsandbytes for parameters that FSDP2 shards.

    ## What it does

    Reports a model with trainable parameters whose training arguments name an optimizer of bitsandbytes
    (`adamw_bnb_8bit`, `paged_adamw_32bit`, ...), where the run shards with FSDP2. FSDP1 hands the optimizer plain tensors.

    ## Why is this bad?

    FSDP2's parameters are DTensors. The first `optimizer.step()` raises, in 8 bits `got mixed torch.Tensor and DTensor`,
    in 32 bits (small parameters too) `Operator bitsandbytes.optimizer_update_32bit.default does not have a sharding
    strategy registered`.

    ## Example

    `TrainingArguments(optim="paged_adamw_8bit")` under `fsdp_version: 2`.

    ## Fix

    `optim="adamw_torch_fused"`, or `adamw_torch_8bit` of torchao, which know DTensors.

    ## Fix safety

    Shown only: another optimizer takes other learning rates and memory.

    ## References

    - https://github.com/axolotl-ai-cloud/axolotl/blob/main/src/axolotl/utils/schemas/validation.py
    - https://github.com/bitsandbytes-foundation/bitsandbytes/issues/1709
    """

    meta: ClassVar[Meta] = Meta(
        code="KB709",
        slug="sharded-bitsandbytes-optimizer",
        severity=Severity.ERROR,
        consequence=Consequence.FAILS,
        since="0.1.0",
    )

    def check_model(self, model: ModelFacts, context: TrainingContext) -> Iterator[Violation]:
        """At most one violation, on the model as a whole."""
        if context.strategy is None:
            raise Unstated("how ranks share the model is not known (--training)")
        if context.strategy is not Strategy.FSDP2 or not model.trainable:
            return
        if context.optimizer is not None and _BITSANDBYTES.fullmatch(context.optimizer):
            yield self.violation(
                f"the optimizer {context.optimizer} of bitsandbytes cannot step parameters that FSDP2 shards",
                Location(),
                evidence={"optimizer": context.optimizer, "trainable": len(model.trainable)},
                fix=Fix("use an optimizer of torch", Safety.DISPLAY),
            )
