"""A batch of the user's own, which steps take in place of an invented one, and the step that the user makes of it."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

import torch

from kbitlint.lazy_dataclass import dataclass
from kbitlint.model.inputs.entries import changed
from kbitlint.model.inputs.interface import signature_of
from kbitlint.model.inputs.recipes import Items

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from torch import Tensor, nn

#: The name under which a batch holds what a step of the user's own takes.
STEP = "."


@dataclass(frozen=True, slots=True)
class Supplied:
    """What the user has handed over."""

    inputs: Any
    """A dictionary of arguments, a tuple of them in their order, or the only argument."""
    step: Callable[[Any, Any], Any] | None = None
    """A function of a model and the inputs that returns the loss. None calls the model."""
    is_exact: bool = False
    """Whether the user has written the batch for this model, so that no other one is tried."""


_SUPPLIED: ContextVar[Supplied | None] = ContextVar("kbitlint_batch", default=None)


@contextmanager
def supplied(inputs: Any, step: Callable[[Any, Any], Any] | None = None, *, is_exact: bool = False) -> Iterator[None]:
    """Let steps inside the ``with`` statement take a batch of the user's own, where the model accepts it.

    Args:
        inputs: The batch. See ``Supplied``.
        step: The step that the user makes of it, or None.
        is_exact: Whether the batch was written for this model.
    """
    token = _SUPPLIED.set(Supplied(inputs, step, is_exact))
    try:
        yield
    finally:
        _SUPPLIED.reset(token)


def own_step() -> Callable[[Any, Any], Any] | None:
    """Return the step that the user has handed over, or None."""
    held = _SUPPLIED.get()
    return None if held is None else held.step


def own_batch(base: nn.Module, device: Any) -> dict[str, Any] | None:
    """Return the supplied batch on a device, with the names that the model's forward has.

    A module may hold an example of its own: ``example_input_array``, as Lightning's modules do. None if no batch is supplied,
    or one that was not written for this model lacks its main input.

    Raises:
        TypeError: The forward does not take a batch that was written for it.
        ValueError: It does not take an entry of it.
    """
    held = _SUPPLIED.get() or _documented(base)
    if held is None:
        return None
    if held.step is not None:
        return {STEP: _moved(held.inputs, device)}
    if not held.is_exact and getattr(base, "main_input_name", "input_ids") not in held.inputs:
        return None
    names = signature_of(base).parameters
    made = {name: _moved(value, device) for name, value in _named(base, held).items() if value is not None}
    return {**made, "use_cache": False} if "use_cache" in names else made


def _documented(base: Any) -> Supplied | None:
    example = getattr(base, "example_input_array", None)
    return None if example is None else Supplied(example, is_exact=True)


def _named(base: nn.Module, held: Supplied) -> dict[str, Any]:
    """Return a batch by the names of the forward's arguments. Those that were passed behind ``*`` stay together."""
    signature = signature_of(base)
    names, inputs = signature.parameters, held.inputs
    if isinstance(inputs, Mapping):
        known = {name: value for name, value in inputs.items() if name in names}
        if not held.is_exact or len(known) == len(inputs):
            return known
        if any(one.kind is one.VAR_KEYWORD for one in names.values()):
            return dict(inputs)
        if known:
            raise ValueError(f"the forward of {type(base).__name__} takes no {min(set(inputs) - set(known))!r}")
    try:
        bound = signature.bind(*inputs) if isinstance(inputs, (tuple, list)) else signature.bind(inputs)
    except TypeError:
        bound = signature.bind(inputs)
    several = {one.name for one in names.values() if one.kind is one.VAR_POSITIONAL}
    return {f"*{name}" if name in several else name: value for name, value in bound.arguments.items()}


def _moved(value: Any, device: Any) -> Any:
    """Return a copy of a value with its tensors on a device. Its lists hold inputs, as a tuple does."""
    return changed(_listed(value), lambda tensor: tensor.detach().to(device))


def _listed(value: Any) -> Any:
    if type(value) in (list, tuple):
        return (Items if type(value) is list else tuple)(_listed(item) for item in value)
    return type(value)({name: _listed(item) for name, item in value.items()}) if type(value) is dict else value


def extent_of_own(base: nn.Module) -> tuple[int, int] | None:
    """Return (sequences, tokens in each) of the supplied batch, by its ids or its first tensor. None if no batch is supplied.

    A batch without a tensor counts as one sequence, and one without ids as sequences of one token.
    """
    if not is_supplied(base):
        return None
    tensors = [one for one in _leaves(own_batch(base, "meta")) if one.dim()]
    ids = [one for one in tensors if one.dim() == 2 and not one.is_floating_point()]
    first = (ids or tensors or [torch.empty(1)])[0]
    return len(first), first.shape[1] if ids else 1


def _leaves(value: Any) -> list[Tensor]:
    found: list[Tensor] = []
    changed(value, lambda tensor: found.append(tensor) or tensor)  # type: ignore[func-returns-value]  # append returns None
    return found


def is_supplied(base: nn.Module) -> bool:
    """Return whether steps of a model take a batch of the user's own."""
    return own_batch(base, "cpu") is not None
