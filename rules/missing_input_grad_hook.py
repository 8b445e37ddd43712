"""KB301."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from kbitlint.rule import Meta, Rule
from kbitlint.violation import Consequence, Edit, Fix, Location, Safety, Severity, Violation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kbitlint.context import TrainingContext
    from kbitlint.model.checkpointing import CheckpointFacts
    from kbitlint.model.facts import ModelFacts


class MissingInputGradHook(Rule):
    """Reentrant checkpointing over layers whose input does not require grad.

    ## What it does

    Reports checkpointed layers that cut the gradient: they checkpoint reentrantly, hold adapters (or will, once
    adapters are attached to the frozen base), no parameter upstream of them is trainable, and no hook on the
    embeddings makes their input require grad.

    ## Why is this bad?

    The reentrant `CheckpointFunction` builds a backward node only if one of its tensor inputs requires grad. With a
    frozen base none does, so no adapter inside the layers ever receives a gradient: `element 0 of tensors does not
    require grad`, or, where something after the layers trains, silence while `lora_B` stays zero.

    ## Example

    `model._set_gradient_checkpointing(True, functools.partial(checkpoint, use_reentrant=True))` after freezing the
    base, without `model.enable_input_require_grads()`.

    ## Fix

    Checkpoint without reentry, which needs no hook. Where the model's own code calls `checkpoint`, the hook is added
    instead.

    ## Fix safety

    Safe: both compute the same values and let gradients through that were cut.

    ## References

    - https://github.com/huggingface/peft/issues/137
    - https://github.com/huggingface/peft/issues/1142
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
        """One violation for each checkpointed layer that cuts the gradient of the parameters in it."""
        loop = context.gradient_checkpointing
        layers = tuple(layer.path for layer in model.checkpointing)
        for layer in model.checkpointing:
            rebinds = loop is not None and loop.enabled and layer.rebindable
            if rebinds and loop is not None:
                cuts = loop.use_reentrant is not False and not loop.installs_hook
            else:
                cuts = layer.reentry.reentrant
            inside = sum(parameter.path.startswith(f"{layer.path}.") for parameter in model.trainable)
            if cuts and (inside or not model.has_adapters) and not _input_requires_grad(model, layer.path, layers):
                yield self._violation(layer, inside)

    def _violation(self, layer: CheckpointFacts, inside: int) -> Violation:
        if layer.rebindable:
            fix = Fix(
                "checkpoint without reentry", Safety.SAFE, (Edit("bind-checkpoint", layer.path, {"use_reentrant": False}),)
            )
        else:
            fix = Fix("make the embeddings' output require grad", Safety.SAFE, (Edit("add-input-grad-hook"),))
        what = "its adapters" if inside else "adapters attached to it"
        return self.violation(
            f"no gradient reaches {what}: the layer checkpoints reentrantly and nothing before it requires grad",
            Location(layer.path),
            evidence={"class": layer.class_name, "use_reentrant": layer.reentry.value, "trainable_inside": inside},
            fix=fix,
        )


def _input_requires_grad(model: ModelFacts, layer: str, layers: tuple[str, ...]) -> bool:
    """Whether something before the layer makes its input require grad: a hook, or a trainable parameter.

    A hook counts where it sits on a module that really runs, in the layer's own transformers model (a text decoder, a
    vision tower) or in one around it. Trainable parameters count in the layer's own model: what is registered before
    its stack of layers, and what stands beside the stack, norms excepted, because some models keep projections there
    that feed the layers. Heads and poolers come after. Before adapters are attached only hooks count: attaching them
    freezes every parameter of the base.
    """
    tower = _tower(model, layer)
    never_run = {embedding.path for embedding in model.embeddings if not embedding.hookable}
    for hooks in model.input_grad_hooks:
        inside_layer = any(_within(hooks.path, other) for other in layers)
        if hooks.path not in never_run and not inside_layer and _within(tower, _tower(model, hooks.path)):
            return True
    if not model.has_adapters:
        return False
    stack = layer.rpartition(".")[0]
    holder = stack.rpartition(".")[0]
    reached_stack = False
    for parameter in model.parameters:
        reached_stack = reached_stack or _within(parameter.path, stack or layer)
        upstream = not reached_stack or _within(parameter.path, holder)
        if (
            parameter.requires_grad
            and upstream
            and not parameter.norm
            and _within(parameter.path, tower)
            and not any(_within(parameter.path, other) for other in layers)
        ):
            return True
    return False


def _tower(model: ModelFacts, path: str) -> str:
    """The innermost transformers model that holds the path."""
    return max((owner for owner in model.models if _within(path, owner)), key=len, default="")


def _within(path: str, ancestor: str) -> bool:
    return not ancestor or path == ancestor or path.startswith(f"{ancestor}.")
