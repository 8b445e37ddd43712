"""KB305."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from kbitlint.rule import Meta, Rule, Unchecked
from kbitlint.violation import Consequence, Fix, Location, Safety, Severity, Violation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kbitlint.context import TrainingContext
    from kbitlint.facts.model import ModelFacts


class StateLostInRecompute(Rule):
    """Adapters that are told in each call where to act, on modules computed again untold.

    ## What it does

    Reports an active adapter with invocation tokens (aLoRA) on a model in which modules checkpoint that are not
    transformers' own checkpointed layers.

    ## Why is this bad?

    PEFT finds the invocation tokens once a call and hands their places to each adapted layer through hooks that it takes
    away when the forward pass is over. The backward pass of a checkpointed module computes it again, without them: the
    adapter then acts on no token, and either every gradient is exactly zero (reentrant) or the recomputation saves
    other tensors than the first pass and torch raises (non-reentrant). For transformers' own `GradientCheckpointingLayer`
    PEFT puts the hooks back (0.21 does, gradients are right), so these are not reported.

    ## Example

    `LoraConfig(alora_invocation_tokens=[...])` on remote code that calls `torch.utils.checkpoint` itself.

    ## Fix

    Train these adapters without checkpointing.

    ## Fix safety

    Nothing is applied: without checkpointing the step may not fit into memory.

    ## References

    - https://github.com/huggingface/peft/issues/2826
    """

    meta: ClassVar[Meta] = Meta(
        code="KB305",
        slug="state-lost-in-recompute",
        severity=Severity.ERROR,
        consequence=Consequence.TRAINS_NOTHING,
        since="0.1.0",
    )

    def check_model(self, model: ModelFacts, context: TrainingContext) -> Iterator[Violation]:
        """One violation for each module that is computed again without the adapter's state."""
        invoked = [adapter for adapter in model.adapters if adapter.invoked and adapter.active]
        if not model.has_adapters:
            raise Unchecked("no adapters are attached yet")
        for facts in model.checkpointing:
            if invoked and not facts.is_layer:
                yield self.violation(
                    "invocation tokens are not known where the module is computed again",
                    Location(facts.path),
                    evidence={"adapters": [adapter.name for adapter in invoked], "class": facts.class_name},
                    fix=Fix("switch checkpointing off", Safety.DISPLAY),
                )
