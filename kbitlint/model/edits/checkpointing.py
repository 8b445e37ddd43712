"""Edits of checkpointing: the bound function, the switch, and the hooks that make inputs require grad."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kbitlint.errors import EditError
from kbitlint.facts.reentry import Reentry
from kbitlint.model.edits.journal import Journal, restore_attribute_on_rollback, restore_hooks_on_rollback, set_attribute
from kbitlint.model.layers import checkpointing
from kbitlint.model.layers.checkpointing import makes_require_grad

if TYPE_CHECKING:
    from torch import nn

    from kbitlint.model.edits.place import EditPlace


def bind_checkpoint(place: EditPlace, journal: Journal) -> None:
    """Bind the checkpoint function of a layer without reentry."""
    module = place.module()
    bound = module.__dict__.get(checkpointing.FUNCTION)
    if bound is None:
        raise EditError(f"bind-checkpoint: {place.edit.path!r} has no checkpoint function bound")
    if not checkpointing.takes_use_reentrant(bound):
        raise EditError(f"bind-checkpoint: the function bound to {place.edit.path!r} takes no use_reentrant")
    if checkpointing.reentry_of(bound) is Reentry.NO:
        return
    set_attribute(module, checkpointing.FUNCTION, checkpointing.without_reentry(bound), journal)


def enable_checkpointing(place: EditPlace, journal: Journal) -> None:
    """Enable through the public method, then drop the embedding hooks it added: non-reentrant needs none."""
    base: Any = place.base
    if not checkpointing.supports_checkpointing(base):
        raise EditError(f"enable-checkpointing: {type(base).__name__} does not support it")
    added = Journal()
    for module in base.modules():
        restore_attribute_on_rollback(module, checkpointing.FUNCTION, journal)
        if hasattr(module, checkpointing.FLAG):
            restore_attribute_on_rollback(module, checkpointing.FLAG, journal)
    restore_attribute_on_rollback(base.config, checkpointing.FLAG, journal)
    for taken_back in (journal, added):
        _restore_input_grad_hooks_on_rollback(base, taken_back)
    checkpointing.enable(base, use_reentrant=False)
    added.rollback()


def _restore_input_grad_hooks_on_rollback(base: nn.Module, journal: Journal) -> None:
    """Record how to undo ``enable_input_require_grads()``.

    It changes hooks on embeddings anywhere, and the handles that the base holds.
    """
    for module in base.modules():
        restore_hooks_on_rollback(module, journal)
    for name in ("_require_grads_hooks", "_require_grads_hook"):
        restore_attribute_on_rollback(base, name, journal)


def drop_input_grad_hooks(place: EditPlace, journal: Journal) -> None:
    """Keep the newest hook, which ``disable_input_require_grads()`` knows, and drop the older ones."""
    module = place.module()
    hooks = module._forward_hooks  # noqa: SLF001  # torch has no public way to list hooks
    found = [number for number, hook in hooks.items() if makes_require_grad(hook)]
    if len(found) <= 1:
        return
    restore_hooks_on_rollback(module, journal)
    for number in found[:-1]:
        del hooks[number]


def add_input_grad_hook(place: EditPlace, journal: Journal) -> None:
    """Make the output of the embeddings require grad, through the public method."""
    base: Any = place.base
    _restore_input_grad_hooks_on_rollback(base, journal)
    base.enable_input_require_grads()
