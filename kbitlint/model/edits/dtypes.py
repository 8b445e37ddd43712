"""Edits that change how weights are stored: dtypes of norms, modules and parameters, and packed experts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from kbitlint.errors import EditError
from kbitlint.model.edits import experts
from kbitlint.model.edits.journal import restore_hooks_on_rollback
from kbitlint.model.layers import adapters
from kbitlint.model.layers.norm_interface import HALF, DtypeTransparency, is_transparent

if TYPE_CHECKING:
    from torch import Tensor, nn

    from kbitlint.model.edits.journal import Journal
    from kbitlint.model.edits.place import EditPlace


def float32_norm(place: EditPlace, journal: Journal) -> None:
    """Store a norm in float32; if its interface is transparent, it returns the dtype that it receives."""
    if place.arguments.get("bare"):
        _cast_parameter(place.parameter(), place, journal)
        return
    module = place.module()
    _cast_own_tensors(module, place, journal)
    if place.arguments.get("interface") == "transparent":
        output = place.arguments.get("output")
        _make_transparent(module, DtypeTransparency(getattr(torch, output) if output else None), journal)


def float32_module(place: EditPlace, journal: Journal) -> None:
    """Let a module compute in float32 and give back the dtype that comes in, or float32. The modules in it stay as they are."""
    module = place.module()
    if not place.edit.path or adapters.wrapped_child(module) is not None:
        raise EditError(f"{place.edit.kind}: {place.edit.path or 'the model'!r} is no module of its own")
    _cast_own_tensors(module, place, journal)
    _make_transparent(module, DtypeTransparency(widens=place.arguments.get("output") == "float32"), journal)


def _cast_own_tensors(module: nn.Module, place: EditPlace, journal: Journal) -> None:
    for parameter in module._parameters.values():  # noqa: SLF001  # own tensors only
        if parameter is not None:
            _cast_parameter(parameter, place, journal)
    for name, buffer in list(module._buffers.items()):  # noqa: SLF001  # own tensors only
        if buffer is not None and buffer.dtype in HALF:
            journal.record(lambda name=name, buffer=buffer: module._buffers.__setitem__(name, buffer))  # type: ignore[misc]  # noqa: SLF001  # the journal binds early
            module._buffers[name] = buffer.float()  # noqa: SLF001  # register_buffer would drop its persistence


def _make_transparent(module: nn.Module, transparency: DtypeTransparency, journal: Journal) -> None:
    if is_transparent(module):
        return
    restore_hooks_on_rollback(module, journal)
    module.register_forward_pre_hook(transparency.enter, with_kwargs=True)
    module.register_forward_hook(transparency.leave)


def _cast_parameter(parameter: nn.Parameter, place: EditPlace, journal: Journal) -> None:
    if parameter.dtype in HALF:
        _store_as(parameter, torch.float32, place, journal)


def _store_as(parameter: nn.Parameter, dtype: torch.dtype, place: EditPlace, journal: Journal) -> None:
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
        parameter.grad = None  # torch refuses to assign a gradient beside one of another dtype
        parameter.grad = gradient.to(parameter.dtype)


def set_dtype(place: EditPlace, journal: Journal) -> None:
    """Store a floating-point parameter in another dtype."""
    parameter, dtype = place.parameter(), getattr(torch, str(place.arguments["dtype"]))
    if not parameter.is_floating_point():
        raise EditError(f"{place.edit.kind}: {place.edit.path!r} is {parameter.dtype}, which holds packed values")
    if parameter.dtype != dtype:
        _store_as(parameter, dtype, place, journal)


def pack_experts(place: EditPlace, journal: Journal) -> None:
    """Pack the weights of fused experts; no optimizer may hold them."""
    module = place.module(place.edit.path.rpartition(".")[0])
    parameter = module._parameters.get(place.edit.path.rpartition(".")[2])  # noqa: SLF001  # packed ones stand elsewhere
    if place.carrier is not None and parameter is not None:
        place.carrier.refuse(parameter, place.edit.path, "packed")
    experts.pack(module, place.edit.path, place.arguments, journal, place.checkpoint)
