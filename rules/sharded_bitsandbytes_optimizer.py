"""Rule KB709: sharded-bitsandbytes-optimizer."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from kbitlint import lazy_patterns as re
from kbitlint.context import Strategy
from kbitlint.rule import Meta, Rule
from kbitlint.upstream.versions import number
from kbitlint.violation import Consequence, Fix, Location, Safety, Severity, Surface, Violation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kbitlint.context import TrainingContext
    from kbitlint.facts.model import ModelFacts
    from kbitlint.facts.source import SourceFacts
    from kbitlint.facts.values import Call

#: their names in TrainingArguments.optim (transformers.training_args.OptimizerNames); ``adamw_torch_8bit`` is torchao's
_BITSANDBYTES = re.compile(r"paged_\w+|ademamix\w*|lion_\w+|(adamw|rmsprop)_(bnb\w*|8bit)")


class ShardedBitsandbytesOptimizer(Rule):
    """A bitsandbytes optimizer for parameters that FSDP2 shards.

    ## What it does

    Reports a model with trainable parameters, if its run shards with FSDP2 and uses a bitsandbytes optimizer
    (`adamw_bnb_8bit`, `paged_adamw_32bit`, ...). FSDP1 passes plain tensors to the optimizer and is not reported.

    In a script, FSDP is read from the training arguments. transformers 5 uses version 2 unless `fsdp_config` sets
    another.

    ## Why is this bad?

    FSDP2's parameters are DTensors, and the first `optimizer.step()` raises. In 8 bits the error is `got mixed
    torch.Tensor and DTensor`. In 32 bits, and for small parameters in 8 bits, it is `Operator
    bitsandbytes.optimizer_update_32bit.default does not have a sharding strategy registered`.

    ## Example

    `TrainingArguments(optim="paged_adamw_8bit")` under `fsdp_version: 2`.

    ## Fix

    Use `optim="adamw_torch_fused"`, or torchao's `adamw_torch_8bit`. Both support DTensors.

    ## Fix safety

    Display only: another optimizer needs another learning rate and another amount of memory.

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
    needs_strategy: ClassVar[bool] = True

    def check_source(self, source: SourceFacts, context: TrainingContext) -> Iterator[Violation]:
        """Yield one violation for each training with a bitsandbytes optimizer under FSDP2 on every path."""
        five = number(source.versions.get("transformers", "5")) >= (5,)
        five = five and source.dialect != "axolotl"  # its schema sets a missing fsdp_version to 1
        for trained in source.trained():
            arguments = trained.paths[0].arguments
            argument = arguments.argument("optim") if arguments is not None else None
            sharded = all(
                training.fsdp is True and training.arguments is not None and _second(training.arguments, default=five)
                for training in trained.paths
            )
            names = {training.arguments.value("optim") for training in trained.paths if training.arguments is not None}
            name = next(iter(names)) if len(names) == 1 else None
            if argument is not None and sharded and isinstance(name, str) and _BITSANDBYTES.fullmatch(name):
                yield self.violation(
                    f"the optimizer {name} of bitsandbytes cannot step parameters that FSDP2 shards",
                    source.at_line(argument.whole.line, "optim"),
                    surface=Surface.SOURCE,
                    evidence={"optimizer": name},
                    fix=Fix("use an optimizer of torch", Safety.DISPLAY),
                )

    def check_model(self, model: ModelFacts, context: TrainingContext) -> Iterator[Violation]:
        """Yield at most one violation, on the model as a whole."""
        if context.strategy is not Strategy.FSDP2 or not model.trainable:
            return
        if context.optimizer is not None and _BITSANDBYTES.fullmatch(context.optimizer):
            yield self.violation(
                f"the optimizer {context.optimizer} of bitsandbytes cannot step parameters that FSDP2 shards",
                Location(),
                evidence={"optimizer": context.optimizer, "trainable": len(model.trainable)},
                fix=Fix("use an optimizer of torch", Safety.DISPLAY),
            )


def _second(arguments: Call, *, default: bool) -> bool:
    """Return whether training arguments are certain to set FSDP2; ``default`` if they set no version."""
    given = arguments.value("fsdp_config")
    if given is None:
        return default
    config = arguments.within("fsdp_config")
    if config is None or not config.complete:
        return False  # a separate file, or unknown values
    if config.value("xla") not in (None, False):
        return False
    version = config.value("version", config.value("fsdp_version"))
    return default if version is None else str(version) == "2"
