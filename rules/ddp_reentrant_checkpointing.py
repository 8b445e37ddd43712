"""Rule KB701: ddp-reentrant-checkpointing."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from kbitlint.context import Strategy
from kbitlint.rule import Meta, Rule
from kbitlint.violation import Consequence, Edit, Fix, Location, Safety, Severity, Violation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kbitlint.context import TrainingContext
    from kbitlint.facts.layers import LayerCheckpointing
    from kbitlint.facts.model import ModelFacts


class DdpReentrantCheckpointing(Rule):
    """Layers that checkpoint reentrantly under DDP with `find_unused_parameters=True`.

    ## What it does

    Reports each layer that holds trainable parameters and checkpoints reentrantly, if the run uses DDP with
    `find_unused_parameters=True` and without `static_graph`.

    It is a warning if `find_unused_parameters` is unknown: Trainer passes `True` for a PeftModel unless
    `ddp_find_unused_parameters` is set. It is also a warning if it is unknown whether the layer's input requires grad.
    If the input does not require grad, KB301 applies instead.

    ## Why is this bad?

    After the forward pass, DDP walks the autograd graph and marks each parameter that it does not find as ready. A
    reentrant checkpoint hides its parameters from that walk. It then computes their gradients in a backward pass of its
    own, which marks them again: `RuntimeError: Expected to mark a variable ready only once`.

    ## Example

    `prepare_model_for_kbit_training(model)` and `get_peft_model` under `torchrun --nproc-per-node 2` with Trainer.

    ## Fix

    Checkpoint without reentry; DDP then works with both settings.

    ## Fix safety

    Safe: both variants compute the same values. Display only if the training arguments bind the checkpoint function.

    ## References

    - https://github.com/huggingface/peft/issues/313
    - https://github.com/huggingface/trl/issues/921
    - https://github.com/huggingface/accelerate/issues/3536
    - https://github.com/huggingface/transformers/pull/4659
    """

    meta: ClassVar[Meta] = Meta(
        code="KB701",
        slug="ddp-reentrant-checkpointing",
        severity=Severity.ERROR,
        consequence=Consequence.FAILS,
        since="0.1.0",
    )
    needs_strategy: ClassVar[bool] = True

    def check_model(self, model: ModelFacts, context: TrainingContext) -> Iterator[Violation]:
        """Yield one violation for each layer whose parameters DDP would mark ready twice."""
        if context.strategy is not Strategy.DDP or context.find_unused_parameters is False or context.static_graph:
            return
        if context.sets_training_mode is not True and model.adapter_training is False:
            return  # the adapters were put into eval mode, in which no layer checkpoints
        loop = context.gradient_checkpointing
        by_loop = loop is not None and loop.enabled
        feeds = {feed.stack: feed for feed in model.feeds}
        trained = {layer for feed in model.feeds for layer in feed.trains_inside}
        trained |= {path for path, parameters in model.by_layer().items() if any(p.requires_grad for p in parameters)}
        for layer in model.checkpoints:
            rebound = by_loop and (layer.is_layer or layer.rebindable)  # the loop binds its own: context.Checkpointing
            asked = loop is not None and loop.use_reentrant is not False
            reentrant = asked if rebound else layer.enabled and layer.reentry.reentrant
            if not reentrant or layer.path not in trained:
                continue
            feed = feeds.get(layer.path.rpartition(".")[0])
            hooked = rebound and loop is not None and loop.installs_hook
            fed = hooked or (feed is not None and (feed.certain or layer.path in feed.fed_by_layers))
            if fed or feed is None or feed.possible:  # without a gradient DDP marks nothing twice: KB301 applies
                yield self._violation(layer, certain=fed and context.find_unused_parameters is True, rebinds=not rebound)

    def _violation(self, layer: LayerCheckpointing, *, certain: bool, rebinds: bool) -> Violation:
        edit = Edit("bind-checkpoint", layer.path, {"use_reentrant": False})
        fix = Fix('pass {"use_reentrant": False} as checkpointing kwargs', Safety.DISPLAY)
        if rebinds and layer.rebindable:
            fix = Fix("checkpoint without reentry", Safety.SAFE, (edit,))
        told = "is told" if certain else "may be told, as by Trainer for a PeftModel,"
        return self.violation(
            f"the layer checkpoints reentrantly and DDP {told} to find unused parameters: it marks its parameters ready twice",
            Location(layer.path),
            severity=Severity.ERROR if certain else Severity.WARNING,
            evidence={"class": layer.class_name, "use_reentrant": layer.reentry.value, "told": certain},
            fix=fix,
        )
