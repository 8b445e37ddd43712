"""Rule KB305: state-lost-in-recompute."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from kbitlint.rule import Meta, Rule, Unchecked
from kbitlint.violation import Consequence, Fix, Location, Safety, Severity, Violation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kbitlint.context import TrainingContext
    from kbitlint.facts.model import ModelFacts


class StateLostInRecompute(Rule):
    """Adapters with invocation tokens on modules whose recomputation does not know the tokens.

    ## What it does

    Reports an active adapter with invocation tokens (aLoRA), if modules checkpoint that are not transformers' own
    checkpointed layers.

    ## Why is this bad?

    In each call, PEFT finds the invocation tokens and passes their positions to the adapted layers through hooks. It
    removes the hooks after the forward pass. The backward pass recomputes a checkpointed module without them, and the
    adapter acts on no token. With reentry every gradient is exactly zero. Without reentry the recomputation saves other
    tensors than the first pass, and torch raises.

    For transformers' own `GradientCheckpointingLayer`, PEFT 0.21 restores the hooks and the gradients are right, so
    these layers are not reported.

    ## Example

    `LoraConfig(alora_invocation_tokens=[...])` on remote code that calls `torch.utils.checkpoint` itself.

    ## Fix

    Train these adapters without checkpointing.

    ## Fix safety

    Display only: without checkpointing the step may not fit into memory.

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
        """Yield one violation for each module that is recomputed without the adapter's state."""
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
