"""Rule KB305: state-lost-in-recompute."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from kbitlint.rule import Meta, Rule, Unchecked
from kbitlint.violation import Consequence, Edit, Fix, Location, Safety, Severity, Violation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kbitlint.context import TrainingContext
    from kbitlint.facts.model import ModelFacts


class StateLostInRecompute(Rule):
    """Adapters with invocation tokens or tasks, on modules whose recomputation does not know them.

    ## What it does

    Reports an active adapter with invocation tokens (aLoRA) on modules that checkpoint and are not transformers' own
    checkpointed layers. Of transformers' own layers, reports the first one with adapters if its input does not require
    grad. Reports an active Poly adapter on every module that checkpoints, and an aLoRA
    that `add_adapter` of transformers attached: no code looks for its tokens.

    ## Why is this bad?

    In each call, PEFT finds the invocation tokens and passes their positions to the adapted layers through hooks. It
    removes the hooks after the forward pass. The backward pass recomputes a checkpointed module without them, and the
    adapter acts on no token. With reentry every gradient is exactly zero. Without reentry the recomputation saves other
    tensors than the first pass, and torch raises.

    For transformers' own `GradientCheckpointingLayer`, PEFT 0.21 adds the hooks again, and removes them with a backward
    hook of the layer. torch runs a layer's backward hook after its gradients, or before them if no input requires grad.
    In the first layer, the hooks are then gone too early. PEFT passes the tasks of Poly through hooks too, and restores
    them nowhere: the backward pass raises `task_ids should not be None`.

    ## Example

    `LoraConfig(alora_invocation_tokens=[...])` on remote code that calls `torch.utils.checkpoint` itself, or on a model
    that checkpoints without reentry and without `enable_input_require_grads()`.

    ## Fix

    For transformers' own layers, a hook that makes the embeddings' output require grad. Elsewhere train these adapters
    without checkpointing.

    ## Fix safety

    Safe: the hook changes no value. Switching checkpointing off is display only, as the step may not fit into memory.

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
        if not model.has_adapters:
            raise Unchecked("no adapters are attached yet")
        active = [adapter for adapter in model.adapters if adapter.active]
        invoked, tasks = [a.name for a in active if a.invoked], [a.name for a in active if a.by_task]
        if any(adapter.invoked and not adapter.searched for adapter in active):
            yield self.violation(
                "invocation tokens are looked for by PEFT's model for causal LM only, so the adapter acts on no token",
                Location(),
                evidence={"adapters": invoked},
                fix=Fix("attach the adapter with get_peft_model and task_type='CAUSAL_LM'", Safety.DISPLAY),
            )
            return
        bare = _first_layers(model, context) if invoked else frozenset()
        for facts in model.checkpointing if invoked or tasks else ():
            if tasks:
                message = "the tasks of the sequences are not known where the module is computed again"
                fix = Fix("switch checkpointing off", Safety.DISPLAY)
            elif not facts.is_layer:
                message = "invocation tokens are not known where the module is computed again"
                fix = Fix("switch checkpointing off", Safety.DISPLAY)
            elif facts.path in bare:
                message = "invocation tokens are forgotten before the layer is computed again: its input does not require grad"
                fix = Fix("make the embeddings' output require grad", Safety.SAFE, (Edit("add-input-grad-hook"),))
            else:
                continue
            evidence = {"adapters": tasks or invoked, "class": facts.class_name}
            yield self.violation(message, Location(facts.path), evidence=evidence, fix=fix)


def _first_layers(model: ModelFacts, context: TrainingContext) -> frozenset[str]:
    """Return the first layer with adapters of each stack whose input does not require grad."""
    loop = context.gradient_checkpointing
    if loop is not None and loop.enabled and loop.installs_hook:
        return frozenset()
    return frozenset(
        min(feed.trains_inside, key=lambda path: (len(path), path))
        for feed in model.feeds
        if feed.trains_inside and not feed.certain and not feed.fed_by_layers
    )
