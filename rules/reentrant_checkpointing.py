"""KB401."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from kbitlint.context import Strategy
from kbitlint.rule import Meta, Rule, Unchecked
from kbitlint.violation import Consequence, Edit, Fix, Location, Safety, Severity, Violation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kbitlint.context import TrainingContext
    from kbitlint.model.checkpointing import CheckpointFacts
    from kbitlint.model.facts import ModelFacts


class ReentrantCheckpointing(Rule):
    """Layers that checkpoint reentrantly, by request or because nothing was passed.

    ## What it does

    Reports every module whose checkpoint function is bound with `use_reentrant=True`, or with no `use_reentrant` at
    all: torch then warns and falls back to reentrant (2.13 still does).

    ## Why is this bad?

    Reentrant checkpointing needs a hook on the embeddings to train a frozen base at all, loses the gradient of tensors
    that are passed by keyword, ignores `torch.autograd.grad`, and fails under DDP with `find_unused_parameters=True`
    ("marked as ready twice"), which is what Trainer passes for a PeftModel.

    ## Example

    `prepare_model_for_kbit_training(model)`: PEFT turns "no kwargs" into `{}`, so transformers' own default of
    `use_reentrant=False` does not apply and the layers get `partial(checkpoint)`.

    ## Fix

    Bind the same checkpoint function with `use_reentrant=False`; its other options are kept. In code: pass
    `gradient_checkpointing_kwargs={"use_reentrant": False}`.

    ## Fix safety

    Safe: both variants compute the same values. Under DeepSpeed ZeRO-3 the rule is skipped, because partitioned
    parameters change shape between forward and recomputation, which only the reentrant variant tolerates.

    ## References

    - https://github.com/huggingface/peft/issues/1142
    - https://github.com/huggingface/trl/issues/921
    - https://github.com/artidoro/qlora/issues/287
    - https://github.com/huggingface/trl/issues/5217
    """

    meta: ClassVar[Meta] = Meta(
        code="KB401",
        slug="reentrant-checkpointing",
        severity=Severity.WARNING,
        consequence=Consequence.FRAGILE,
        since="0.1.0",
    )

    def check_model(self, model: ModelFacts, context: TrainingContext) -> Iterator[Violation]:
        """One violation for each module that checkpoints reentrantly."""
        if context.strategy is Strategy.ZERO3:
            raise Unchecked("ZeRO-3 needs reentrant checkpointing")
        loop = context.gradient_checkpointing
        for module in model.checkpointing:
            if loop is not None and loop.enabled and module.rebindable:
                continue  # the loop binds its own function before the first step: see below
            if module.reentry.reentrant:
                yield self._violation(module)
        if loop is not None and loop.enabled and loop.use_reentrant is not False:
            yield self.violation(
                "the training arguments ask for reentrant checkpointing",
                Location(),
                evidence={"use_reentrant": "unset" if loop.use_reentrant is None else "True"},
                fix=Fix('pass {"use_reentrant": False} as checkpointing kwargs', Safety.DISPLAY),
            )

    def _violation(self, module: CheckpointFacts) -> Violation:
        unset = module.reentry.value == "unset"
        fix = Fix("checkpoint without reentry", Safety.SAFE, (Edit("bind-checkpoint", module.path, {"use_reentrant": False}),))
        if not module.rebindable:
            fix = Fix("pass use_reentrant=False in the model's own code", Safety.DISPLAY)
        return self.violation(
            "use_reentrant is not passed, so torch checkpoints reentrantly" if unset else "checkpointing is reentrant",
            Location(module.path),
            evidence={"class": module.class_name, "use_reentrant": module.reentry.value},
            fix=fix,
        )
