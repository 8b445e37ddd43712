"""Casts of an optimizer's state when one of its parameters changes its dtype.

AdamW's moments have the dtype of the parameter at its first step. torch raises in the next step if the dtypes differ
(``Tensor.lerp_`` in torch 2.13). ``Optimizer.load_state_dict`` casts states in the same way.
"""

from __future__ import annotations

import gc
from typing import TYPE_CHECKING, Any

from torch import Tensor
from torch.optim import Optimizer

from kbitlint.errors import EditError, KbitlintError
from kbitlint.lazy_dataclass import dataclass
from kbitlint.model.attributes import attribute

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    import torch
    from torch import nn

    from kbitlint.model.edits.journal import Journal


def unwrapped(optimizer: Any) -> Any:
    """Return the optimizer below the wrappers of accelerate and DeepSpeed, which hold it as ``optimizer``.

    Raises:
        KbitlintError: The object is no optimizer.
    """
    given = optimizer
    while (inner := attribute(optimizer, "optimizer")) is not None:
        optimizer = inner
    if not isinstance(attribute(optimizer, "param_groups"), list) or not hasattr(attribute(optimizer, "state"), "items"):
        raise KbitlintError(f"optimizer: a {type(given).__name__} has no param_groups and no state, so it is no optimizer")
    return optimizer


class Carrier:
    """A cast of optimizer states, made while edits are applied to one model.

    Args:
        journal: Restores the states after the parameters.
        model: The model whose parameters change.
        given: The optimizer that the caller passes, or None. Other optimizers of this process are found by their class.
    """

    def __init__(self, journal: Journal, model: nn.Module, given: Any = None) -> None:
        self.journal, self.model, self.given = journal, model, given
        self._holders: dict[int, list[Any]] | None = None
        self._changed: dict[nn.Parameter, None] = {}
        self._carried: dict[tuple[int, int, str], _Cast] = {}
        """Casts by (id of the optimizer, id of the parameter, key of the state)."""

    def follow(self, parameter: nn.Parameter, dtype: torch.dtype, path: str) -> None:
        """Cast the optimizer states of a parameter that is about to change its dtype.

        Raises:
            EditError: An optimizer holds the state in a form that cannot be cast.
        """
        if not self._may_be_held(parameter):
            return
        holders = self._holding(parameter, path)
        if not self._changed:
            self.journal.record(self._restore)
        self._changed[parameter] = None
        for optimizer in holders:
            state = optimizer.state.get(parameter, {})
            for key, value in list(state.items()):
                # bitsandbytes stores float32 or bytes for every dtype
                if _is_moment(key, value) and value.dtype == parameter.dtype:
                    state[key] = value.to(dtype)
                    lossy = dtype.itemsize < value.dtype.itemsize
                    cast = _Cast(value if lossy else None, state[key], state[key]._version)  # noqa: SLF001  # autograd compares this counter as well
                    self._carried[id(optimizer), id(parameter), key] = cast

    def refuse(self, parameter: nn.Parameter, path: str, change: str) -> None:
        """Raise EditError if an optimizer trains a parameter that is about to be replaced as a whole."""
        if self._may_be_held(parameter):
            for optimizer in self._holding(parameter, path):
                if parameter.requires_grad or parameter in optimizer.state:
                    raise _refusal(optimizer, path, f"trains it, and would lose it where it is {change}")

    def _may_be_held(self, parameter: nn.Parameter) -> bool:
        """Return whether to search for optimizers.

        The search takes a tenth of a second, and frozen parameters have no next step.
        """
        return not parameter.is_meta and (
            parameter.requires_grad or parameter.grad is not None or self.given is not None or self._holders is not None
        )

    def _holding(self, parameter: nn.Parameter, path: str) -> list[Any]:
        """Return the optimizers that hold a parameter.

        Raises:
            EditError: The given optimizer holds none of the model's parameters, or an optimizer's state cannot be cast.
        """
        if self._holders is None:
            self._holders = {}
            for optimizer in _optimizers(self.given):
                for held in _parameters(optimizer):
                    self._holders.setdefault(id(held), []).append(optimizer)
        if self.given is not None and parameter.requires_grad:
            given = unwrapped(self.given)
            if {id(held) for held in _parameters(given)}.isdisjoint(map(id, self.model.parameters())):
                raise _refusal(given, path, "holds none of the model's parameters but shards or copies of them")
        holders = self._holders.get(id(parameter), [])
        for optimizer in holders:
            _check_state(optimizer, path)
        return holders

    def _restore(self) -> None:
        """Cast the states back after the parameters are restored, including those of optimizers built in the meantime."""
        for optimizer in _optimizers(self.given):
            held = {id(parameter) for parameter in _parameters(optimizer)}
            for parameter in self._changed:
                if id(parameter) in held and parameter in optimizer.state:
                    self._restore_state(optimizer, parameter)

    def _restore_state(self, optimizer: Any, parameter: nn.Parameter) -> None:
        state = optimizer.state[parameter]
        for key, value in list(state.items()):
            cast = self._carried.get((id(optimizer), id(parameter), key))
            follows = cast is not None or (type(optimizer).__module__.startswith("torch.optim.") and _is_moment(key, value))
            if follows and value.dtype != parameter.dtype:
                state[key] = value.to(parameter.dtype) if cast is None else cast.back(value, parameter.dtype)


@dataclass(frozen=True, slots=True)
class _Cast:
    """A tensor of an optimizer state that was cast."""

    before: Tensor | None
    """The original tensor, or None if a cast back loses no bits."""
    after: Tensor
    """The tensor after the cast."""
    version: int
    """Its version counter after the cast. An in-place change raises the counter."""

    def back(self, now: Tensor, dtype: torch.dtype) -> Tensor:
        """Return the original tensor. If the optimizer has made a step since, return the current values in the former dtype."""
        untouched = now is self.after and now._version == self.version  # noqa: SLF001  # autograd compares this counter as well
        return self.before if self.before is not None and untouched else now.to(dtype)


def _optimizers(given: Any) -> Iterator[Any]:
    """Yield the given optimizer and every other one of this process, once each, without wrappers."""
    found = [value for value in gc.get_objects() if issubclass(type(value), Optimizer)]
    seen: set[int] = set()
    for candidate in found if given is None else [given, *found]:
        try:
            optimizer = unwrapped(candidate)
        except KbitlintError:  # one that is not initialised yet, or a placeholder that a launcher replaces later
            continue
        if id(optimizer) not in seen:
            seen.add(id(optimizer))
            yield optimizer


def _parameters(optimizer: Any) -> Iterable[Any]:
    groups = attribute(optimizer, "param_groups")
    return [parameter for group in groups or () for parameter in group["params"]]


def _is_moment(key: str, value: Any) -> bool:
    """Return whether a value of a state is a floating-point tensor other than the step count."""
    return isinstance(value, Tensor) and value.is_floating_point() and value.dim() > 0 and key != "step"


def _check_state(optimizer: Any, path: str) -> None:
    """Raise EditError if an optimizer's state holds lists of tensors. LBFGS flattens all its parameters into one vector."""
    for state in optimizer.state.values():
        for key, value in state.items():
            if isinstance(value, (list, tuple, dict)):
                raise _refusal(optimizer, path, f"keeps {key!r} of all its parameters together, which has one dtype")


def _refusal(optimizer: Any, path: str, why: str) -> EditError:
    name = type(optimizer).__name__
    return EditError(f"{path}: {name} {why}; nothing was changed: fix the model before the optimizer is built")
