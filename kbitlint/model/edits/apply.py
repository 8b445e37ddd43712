"""Application of edits to a live model, undone bit for bit on rollback.

Every change is recorded in a journal before it is made. Any failure (an edit that does not fit, out of memory, Ctrl-C) thus
leaves the model unchanged.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from kbitlint.errors import EditError
from kbitlint.facts.layers import Reentry
from kbitlint.model.edits import experts
from kbitlint.model.edits.checkpoint_tensors import stored_parameters
from kbitlint.model.edits.journal import Journal, restore_attribute_on_rollback, restore_hooks_on_rollback, set_attribute
from kbitlint.model.layers import adapters, checkpointing
from kbitlint.model.layers.checkpointing import makes_require_grad
from kbitlint.model.layers.norm_interface import HALF, DtypeTransparency, is_transparent

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from kbitlint.model.edits.checkpoint_tensors import StoredParameters
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
        kind(_Place(model, base, edit, checkpoint, carrier), journal)


class _Place:
    """The module or parameter that an edit changes, found by its path below all wrappers of the model."""

    def __init__(
        self,
        model: nn.Module,
        base: nn.Module,
        edit: Edit,
        checkpoint: Callable[[], StoredParameters | None],
        carrier: Carrier | None,
    ) -> None:
        self.model, self.base, self.edit, self.checkpoint, self.carrier = model, base, edit, checkpoint, carrier

    @property
    def arguments(self) -> Mapping[str, Any]:
        return self.edit.arguments

    def module(self, path: str | None = None) -> nn.Module:
        """Return the module at a path. Adapters that wrap modules on the way are skipped.

        Raises:
            EditError: The model has no such module.
        """
        path = self.edit.path if path is None else path
        for root in (self.base, self.model):
            found = _descend(root, path)
            if found is not None:
                return found
        raise EditError(f"{self.edit.kind}: {type(self.base).__name__} has no module {path!r}")

    def parameter(self) -> nn.Parameter:
        """Return the parameter at the path of the edit.

        Raises:
            EditError: The model has no such parameter.
        """
        owner, _, name = self.edit.path.rpartition(".")
        for root in (self.base, self.model):
            module = _descend(root, owner)
            while module is not None:
                parameter = module._parameters.get(name)  # noqa: SLF001  # torch has no public dictionary
                if parameter is not None:
                    return parameter
                wrapped = adapters.wrapped_child(module)
                module = None if wrapped is None else module._modules[wrapped]  # noqa: SLF001  # see above
        raise EditError(f"{self.edit.kind}: {type(self.base).__name__} has no parameter {self.edit.path!r}")


def _descend(root: nn.Module, path: str) -> nn.Module | None:
    """Return the module at a path below a root, or None if there is none. Wrappers on the way are skipped."""
    module = adapters.seen_through(root)
    for name in path.split(".") if path else ():
        children = module._modules  # noqa: SLF001  # torch has no public dictionary of children
        wrapped = adapters.wrapped_child(module)
        while name not in children and wrapped is not None:
            module = adapters.seen_through(children[wrapped])  # type: ignore[arg-type]  # a wrapped child is never None
            children = module._modules  # noqa: SLF001  # see above
            wrapped = adapters.wrapped_child(module)
        child = children.get(name)
        if child is None:
            return None
        module = adapters.seen_through(child)
    return module


def _float32_norm(place: _Place, journal: Journal) -> None:
    if place.arguments.get("bare"):
        _cast_parameter(place.parameter(), place, journal)
        return
    module = place.module()
    _cast_own_tensors(module, place, journal)
    if place.arguments.get("interface") == "transparent":
        output = place.arguments.get("output")
        _make_transparent(module, getattr(torch, output) if output else None, journal)


def _float32_module(place: _Place, journal: Journal) -> None:
    """Make a module compute in float32 and return the dtype of its input. Its child modules stay unchanged."""
    module = place.module()
    if not place.edit.path or adapters.wrapped_child(module) is not None:
        raise EditError(f"{place.edit.kind}: {place.edit.path or 'the model'!r} is no module of its own")
    _cast_own_tensors(module, place, journal)
    _make_transparent(module, None, journal)


def _cast_own_tensors(module: nn.Module, place: _Place, journal: Journal) -> None:
    for parameter in module._parameters.values():  # noqa: SLF001  # tensors of the module alone
        if parameter is not None:
            _cast_parameter(parameter, place, journal)
    for name, buffer in list(module._buffers.items()):  # noqa: SLF001  # tensors of the module alone
        if buffer is not None and buffer.dtype in HALF:
            journal.record(lambda name=name, buffer=buffer: module._buffers.__setitem__(name, buffer))  # type: ignore[misc]  # noqa: SLF001  # the journal binds early
            module._buffers[name] = buffer.float()  # noqa: SLF001  # register_buffer would reset whether it is persistent


def _make_transparent(module: nn.Module, output: torch.dtype | None, journal: Journal) -> None:
    if is_transparent(module):
        return
    transparency = DtypeTransparency(output)
    restore_hooks_on_rollback(module, journal)
    module.register_forward_pre_hook(transparency.enter, with_kwargs=True)
    module.register_forward_hook(transparency.leave)


def _cast_parameter(parameter: nn.Parameter, place: _Place, journal: Journal) -> None:
    if parameter.dtype in HALF:
        _store_as(parameter, torch.float32, place, journal)


def _store_as(parameter: nn.Parameter, dtype: torch.dtype, place: _Place, journal: Journal) -> None:
    """Store a parameter in another dtype, and cast its gradient and optimizer states as well.

    The original values are kept for the rollback, unless a cast back restores them bit for bit.
    """
    if place.carrier is not None:
        place.carrier.follow(parameter, dtype, place.edit.path)
    before: Tensor | None = parameter.data
    wide, after = parameter.dtype, parameter.data.to(dtype)
    if not after.is_meta and after.element_size() < parameter.element_size() and torch.equal(after.to(wide), parameter.data):
        before = None

    def restore() -> None:
        parameter.data = parameter.data.to(wide) if before is None else before
        _cast_gradient(parameter)

    journal.record(restore)
    parameter.data = after
    _cast_gradient(parameter)


def _cast_gradient(parameter: nn.Parameter) -> None:
    gradient = parameter.grad
    if gradient is not None and gradient.dtype != parameter.dtype:
        parameter.grad = None  # torch raises if the old gradient has another dtype than the parameter
        parameter.grad = gradient.to(parameter.dtype)


def _set_dtype(place: _Place, journal: Journal) -> None:
    parameter, dtype = place.parameter(), getattr(torch, str(place.arguments["dtype"]))
    if not parameter.is_floating_point():
        raise EditError(f"{place.edit.kind}: {place.edit.path!r} is {parameter.dtype}, which holds packed values")
    if parameter.dtype != dtype:
        _store_as(parameter, dtype, place, journal)


def _pack_experts(place: _Place, journal: Journal) -> None:
    module = place.module(place.edit.path.rpartition(".")[0])
    parameter = module._parameters.get(place.edit.path.rpartition(".")[2])  # noqa: SLF001  # a packed parameter has another owner
    if place.carrier is not None and parameter is not None:
        place.carrier.refuse(parameter, place.edit.path, "packed")
    experts.pack(module, place.edit.path, place.arguments, journal, place.checkpoint)


def _set_requires_grad(place: _Place, journal: Journal, value: bool) -> None:  # noqa: FBT001  # the value that is set
    parameter = place.parameter()
    if parameter.requires_grad is value:
        return
    journal.record(lambda: _require(parameter, not value))
    _require(parameter, value)


def _require(parameter: nn.Parameter, value: bool) -> None:  # noqa: FBT001  # the value that is set
    parameter.requires_grad = value


def _bind_checkpoint(place: _Place, journal: Journal) -> None:
    module = place.module()
    bound = module.__dict__.get(checkpointing.FUNCTION)
    if bound is None:
        raise EditError(f"bind-checkpoint: {place.edit.path!r} has no checkpoint function bound")
    if not checkpointing.takes_use_reentrant(bound):
        raise EditError(f"bind-checkpoint: the function bound to {place.edit.path!r} takes no use_reentrant")
    if checkpointing.reentry_of(bound) is Reentry.NO:
        return
    set_attribute(module, checkpointing.FUNCTION, checkpointing.without_reentry(bound), journal)


def _enable_checkpointing(place: _Place, journal: Journal) -> None:
    """Enable checkpointing through the public method. Then remove the embedding hooks that it added.

    Non-reentrant checkpointing needs no such hooks.
    """
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


def _drop_input_grad_hooks(place: _Place, journal: Journal) -> None:
    """Remove all but the newest hook, which ``disable_input_require_grads()`` can remove."""
    module = place.module()
    hooks = module._forward_hooks  # noqa: SLF001  # torch has no public way to list hooks
    found = [number for number, hook in hooks.items() if makes_require_grad(hook)]
    if len(found) <= 1:
        return
    restore_hooks_on_rollback(module, journal)
    for number in found[:-1]:
        del hooks[number]


def _add_input_grad_hook(place: _Place, journal: Journal) -> None:
    base: Any = place.base
    _restore_input_grad_hooks_on_rollback(base, journal)
    base.enable_input_require_grads()


def _set_config(place: _Place, journal: Journal) -> None:
    config: Any = place.base
    for name in place.edit.path.split("."):
        config = getattr(config, name, None)
    if config is None:
        raise EditError(f"set-config: the model has no {place.edit.path!r}")
    for name, value in place.arguments.items():
        if getattr(config, name, None) != value:
            set_attribute(config, name, value, journal)


def _train(place: _Place, journal: Journal) -> None:
    before = [(module, module.training) for module in place.model.modules()]

    def restore() -> None:
        for module, training in before:
            module.training = training

    journal.record(restore)
    place.model.train()


def _compute_dtype(place: _Place, journal: Journal) -> None:
    module = place.module()
    set_attribute(module, "compute_dtype", getattr(torch, str(place.arguments["dtype"])), journal)


KINDS: dict[str, Callable[[_Place, Journal], None]] = {
    "add-input-grad-hook": _add_input_grad_hook,
    "bind-checkpoint": _bind_checkpoint,
    "compute-dtype": _compute_dtype,
    "drop-input-grad-hooks": _drop_input_grad_hooks,
    "enable-checkpointing": _enable_checkpointing,
    FLOAT32_MODULE: _float32_module,
    "float32-norm": _float32_norm,
    "freeze": lambda place, journal: _set_requires_grad(place, journal, value=False),
    "narrow-parameter": _set_dtype,
    "pack-experts": _pack_experts,
    "set-config": _set_config,
    "train": _train,
    "unfreeze": lambda place, journal: _set_requires_grad(place, journal, value=True),
    "widen-parameter": _set_dtype,
}
"""Every kind of edit, by its name in ``kbitlint.json``."""
