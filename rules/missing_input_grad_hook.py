"""Rule KB301: missing-input-grad-hook."""

from __future__ import annotations

import dataclasses
from collections import Counter
from typing import TYPE_CHECKING, ClassVar

from kbitlint.facts.histories import attached_first
from kbitlint.rule import Meta, Rule, Unchecked
from kbitlint.violation import Consequence, Edit, Fix, Location, Safety, Severity, Surface, Violation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kbitlint.context import TrainingContext
    from kbitlint.facts.layers import LayerCheckpointing
    from kbitlint.facts.model import ModelFacts
    from kbitlint.facts.source import SourceFacts
    from kbitlint.facts.trace import TraceFacts


class MissingInputGradHook(Rule):
    """Reentrant checkpointing over layers whose input does not require grad.

    ## What it does

    Reports reentrantly checkpointed layers that hold adapters, or will, where no parameter upstream is trainable and no hook
    makes the embeddings' output require grad. It is a warning if text alone does not run them, or a trainable module may first.

    ## Why is this bad?

    The reentrant `CheckpointFunction` builds a backward node only if one of its tensor inputs requires grad. With a frozen base
    none does, so no adapter inside the layers gets a gradient. The step raises `element 0 of tensors does not require grad`. If
    a module after the layers trains, it does not raise, and `lora_B` stays zero.

    ## Example

    `gradient_checkpointing_kwargs={"use_reentrant": True}` over a frozen base, without `enable_input_require_grads()`.

    ## Fix

    Checkpoint without reentry, which needs no hook. If the model's own code calls `checkpoint`, add the hook instead.

    ## Fix safety

    Safe: both compute the same values and restore the gradients that were cut. Display only in a script.

    ## References

    - https://github.com/huggingface/peft/issues/137
    - https://github.com/huggingface/transformers/issues/42489
    """

    meta: ClassVar[Meta] = Meta(
        code="KB301",
        slug="missing-input-grad-hook",
        severity=Severity.ERROR,
        consequence=Consequence.TRAINS_NOTHING,
        since="0.1.0",
    )

    def check_model(self, model: ModelFacts, context: TrainingContext) -> Iterator[Violation]:
        """Yield one violation for each checkpointed layer that cuts the gradient of the parameters in it."""
        if model.compiled:
            raise Unchecked("torch.compile decides how the checkpoints run")
        loop = context.gradient_checkpointing
        feeds = {feed.stack: feed for feed in model.feeds}
        inside = Counter(layer for feed in model.feeds for layer in feed.trains_inside)
        adapted = model.has_adapters
        for layer in model.checkpointing:
            if loop is not None and loop.enabled and layer.rebindable:
                cuts = loop.use_reentrant is not False and not loop.installs_hook
            else:
                cuts = layer.reentry.reentrant
            if not cuts or (adapted and not inside[layer.path]):
                continue
            feed = feeds[layer.path.rpartition(".")[0]]
            if not feed.certain and layer.path not in feed.fed_by_layers:
                yield self._violation(layer, inside[layer.path], feed.possible)

    def check_source(self, source: SourceFacts, context: TrainingContext) -> Iterator[Violation]:
        """Yield one violation for each training of adapters with reentrant checkpoints and no hook on every path."""
        for trained in source.trained(quantized=True):
            cut = all(
                model.checkpointing.enabled
                and model.checkpointing.reentry.reentrant
                and not model.hooks
                and model.adapters is not None
                and model.base_frozen
                for model in trained.models
            )
            if cut and trained.certain and (trained.kbit or attached_first(source, trained)):
                cause = "the layers checkpoint reentrantly and nothing before them requires grad"
                what = f"no gradient reaches its adapters: {cause}"
                fix = Fix('checkpoint without reentry: {"use_reentrant": False}', Safety.DISPLAY)
                at = source.at(trained.models[0].checkpointing.by or trained.call)
                yield self.violation(what, at, surface=Surface.SOURCE, fix=fix)

    def check_trace(self, trace: TraceFacts, context: TrainingContext) -> Iterator[Violation]:
        """Yield one violation for each layer that the traced step found cut off; its attributes determine the fix."""
        if trace.model.compiled:
            raise Unchecked("torch.compile decides how the checkpoints run")
        if not trace.gradients:
            raise Unchecked("the step stops before a gradient could arrive")
        unseen = {violation.at.path: violation for violation in self.check_model(trace.model, context)}
        layers = {layer.path: layer for layer in trace.model.checkpoints}
        inside = Counter(facts.at for facts in trace.gradients if facts.reentrant and not facts.virtual)
        raises = all(facts.cut is not None for facts in trace.gradients if not facts.virtual)  # the loss needs no gradient
        for path in dict.fromkeys(facts.at for facts in trace.gradients if facts.reentrant):
            what = "its adapters" if inside[path] else "adapters attached to it"
            only = "" if path in unseen else " (only the traced step shows it)"
            yield self.violation(
                f"no gradient reaches {what}: the layer checkpoints reentrantly and nothing before it requires grad{only}",
                Location(path),
                surface=Surface.TRACE,
                consequence=Consequence.FAILS if raises and inside[path] else None,
                evidence={"trainable_inside": inside[path], "seen_in_attributes": path in unseen},
                fix=self._fix(layers.get(path)),
            )
        from kbitlint.facts.trace import Cut  # an audit of a script needs no facts of a trace

        idle = {facts.at for facts in trace.gradients if facts.cut is Cut.NOT_CALLED and not facts.virtual}
        for path, violation in unseen.items():  # layers of a tower that this batch does not run
            if path not in trace.called and any(f"{path}.".startswith(f"{at}.") for at in idle):
                yield dataclasses.replace(violation, severity=Severity.WARNING, surface=Surface.TRACE)

    @staticmethod
    def _fix(layer: LayerCheckpointing | None) -> Fix:
        if layer is not None and layer.rebindable:
            edit = Edit("bind-checkpoint", layer.path, {"use_reentrant": False})
            return Fix("checkpoint without reentry", Safety.SAFE, (edit,))
        return Fix("make the embeddings' output require grad", Safety.SAFE, (Edit("add-input-grad-hook"),))

    def _violation(self, layer: LayerCheckpointing, inside: int, possible: str | None) -> Violation:
        what = "its adapters" if inside else "adapters attached to it"
        unless = f", unless {possible} runs before it" if possible else ""
        return self.violation(
            f"no gradient reaches {what}: the layer checkpoints reentrantly and nothing before it requires grad{unless}",
            Location(layer.path),
            severity=Severity.WARNING if possible else Severity.ERROR,
            evidence={"class": layer.class_name, "use_reentrant": layer.reentry.value, "trainable_inside": inside},
            fix=self._fix(layer),
        )
