"""Application of edits to a live model, undone bit for bit on rollback.

Every change is recorded in a journal before it is made. Any failure (an edit that does not fit, out of memory, Ctrl-C) thus
leaves the model unchanged.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import torch

from kbitlint.errors import EditError
from kbitlint.model.edits import checkpointing, dtypes
from kbitlint.model.edits.checkpoint_tensors import stored_parameters
from kbitlint.model.edits.journal import set_attribute
from kbitlint.model.edits.place import EditPlace
from kbitlint.model.layers import adapters

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from torch import nn

    from kbitlint.model.edits.journal import Journal
    from kbitlint.model.edits.optimizers import Carrier
    from kbitlint.violation import Edit

FLOAT32_MODULE = "float32-module"
"""The kind of edit that makes a single module compute in float32."""


def apply(model: nn.Module, edits: Iterable[Edit], journal: Journal, carrier: Carrier | None = None) -> None:
    """Apply edits to a model in their order.

    An edit whose change is already made does nothing. On an error the caller rolls the journal back.

    Args:
        model: The model to change.
        edits: The edits.
        journal: Records how to undo each change.
        carrier: Casts the states of optimizers along with their parameters. None leaves optimizers unchanged, for edits that
            are undone at once.

    Raises:
        EditError: An edit does not fit the model, such as one of a missing module. Or this version does not know its kind.
    """
    base = adapters.base_of(model)
    checkpoint = functools.cache(lambda: stored_parameters(base))  # opened by the first edit that needs it, for all edits
    for edit in edits:
        kind = KINDS.get(edit.kind)
        if kind is None:
            raise EditError(f"unknown kind of edit {edit.kind!r}; this version knows {', '.join(sorted(KINDS))}")
        kind(EditPlace(model, base, edit, checkpoint, carrier), journal)


def _set_requires_grad(place: EditPlace, journal: Journal, value: bool) -> None:  # noqa: FBT001  # the value that is set
    parameter = place.parameter()
    if parameter.requires_grad is value:
        return
    journal.record(lambda: _require(parameter, not value))
    _require(parameter, value)


def _require(parameter: nn.Parameter, value: bool) -> None:  # noqa: FBT001  # the value that is set
    parameter.requires_grad = value


def _set_config(place: EditPlace, journal: Journal) -> None:
    config: Any = place.base
    for name in place.edit.path.split("."):
        config = getattr(config, name, None)
    if config is None:
        raise EditError(f"set-config: the model has no {place.edit.path!r}")
    for name, value in place.arguments.items():
        if getattr(config, name, None) != value:
            set_attribute(config, name, value, journal)


def _train(place: EditPlace, journal: Journal) -> None:
    before = [(module, module.training) for module in place.model.modules()]

    def restore() -> None:
        for module, training in before:
            module.training = training

    journal.record(restore)
    place.model.train()


def _compute_dtype(place: EditPlace, journal: Journal) -> None:
    module = place.module()
    set_attribute(module, "compute_dtype", getattr(torch, str(place.arguments["dtype"])), journal)


KINDS: dict[str, Callable[[EditPlace, Journal], None]] = {
    "add-input-grad-hook": checkpointing.add_input_grad_hook,
    "bind-checkpoint": checkpointing.bind_checkpoint,
    "compute-dtype": _compute_dtype,
    "drop-input-grad-hooks": checkpointing.drop_input_grad_hooks,
    "enable-checkpointing": checkpointing.enable_checkpointing,
    FLOAT32_MODULE: dtypes.float32_module,
    "float32-norm": dtypes.float32_norm,
    "freeze": lambda place, journal: _set_requires_grad(place, journal, value=False),
    "narrow-parameter": dtypes.set_dtype,
    "pack-experts": dtypes.pack_experts,
    "set-config": _set_config,
    "train": _train,
    "unfreeze": lambda place, journal: _set_requires_grad(place, journal, value=True),
    "widen-parameter": dtypes.set_dtype,
}
"""Every kind of edit, by its name in ``kbitlint.json``."""
