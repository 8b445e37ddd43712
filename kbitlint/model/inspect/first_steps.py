"""Reads the parameters of a model before, during and after the first optimizer steps of a real run.

Values are compared by a sum of their bits, so that no copy of a model is held. A gradient is read once a step.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from kbitlint.facts.first_steps import FirstStepsFacts
from kbitlint.model.inspect.walk import named_modules
from kbitlint.model.layers.values import is_finite

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from torch import nn

#: the widest integers first: bits are read in as few elements as the size allows
_WORDS = (torch.int64, torch.int32, torch.int16, torch.uint8)
_Bits = tuple[tuple[int, ...], torch.dtype, int]


def _local(tensor: Any) -> torch.Tensor:
    """Return the part of a tensor that this rank holds."""
    return tensor.to_local() if hasattr(tensor, "to_local") else tensor


def _bits(parameter: torch.Tensor) -> _Bits | None:
    """Return (shape, dtype, sum of the bits) of a parameter; None if this rank holds no values of it."""
    held = _local(parameter.detach())
    if held.is_meta or not held.numel():
        return None
    flat = held.contiguous().reshape(-1)
    for word in _WORDS:
        try:
            return tuple(held.shape), held.dtype, int(flat.view(word).sum(dtype=torch.int64))
        except RuntimeError:  # the size or the offset is no multiple of the word
            continue
    return None


def _finite(tensor: torch.Tensor) -> bool:
    return not tensor.is_floating_point() or bool(torch.isfinite(tensor.sum())) or is_finite(tensor)


def _gradient(parameter: torch.Tensor) -> torch.Tensor | None:
    gradient = parameter.grad
    if gradient is None:
        return None
    held = _local(gradient.detach())
    return held.coalesce().values() if held.is_sparse else held


def _named(model: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """Yield (path, parameter), each parameter once."""
    known: set[int] = set()
    for path, module in named_modules(model):
        for name, parameter in module.named_parameters(recurse=False):
            if id(parameter) not in known:
                known.add(id(parameter))
                yield (f"{path}.{name}" if path else name), parameter


class FirstSteps:
    """The parameters of a model, compared before and after the first optimizer steps."""

    def __init__(self, model: nn.Module) -> None:
        """Read every parameter once; the model is left as it is."""
        self._trainable: dict[str, tuple[nn.Parameter, _Bits]] = {}
        self._frozen: dict[str, tuple[nn.Parameter, _Bits]] = {}
        for path, parameter in _named(model):
            bits = _bits(parameter)
            if bits is not None:
                (self._trainable if parameter.requires_grad else self._frozen)[path] = (parameter, bits)
        self._damaged = {path for path, (parameter, _) in self._trainable.items() if not _finite(_local(parameter.detach()))}
        self._reached: set[str] = set()
        self._nonfinite: set[str] = set()
        self._pending: tuple[set[str], set[str]] = (set(), set())
        self._read = False
        self._rates: list[float] = []
        self.steps = self.skipped = 0

    def read_gradients(self, rates: Iterable[float] = ()) -> None:
        """Read the gradients before an optimizer step.

        Args:
            rates: The learning rates of the step.
        """
        self._rates += rates
        reached, nonfinite = self._pending
        for path, (parameter, _) in self._trainable.items():
            gradient = _gradient(parameter)
            if gradient is None:
                continue
            self._read = True
            if not _finite(gradient):
                nonfinite.add(path)
            if bool(gradient.any()):
                reached.add(path)

    def count_step(self, *, skipped: bool) -> None:
        """Count the step whose gradients were read.

        Args:
            skipped: Whether the gradient scaler skipped it.
        """
        reached, nonfinite = self._pending
        self._pending = (set(), set())
        self._reached |= reached
        if skipped:
            self.skipped += 1
            return
        self.steps += 1
        self._nonfinite |= nonfinite

    def facts(self) -> FirstStepsFacts:
        """Return what the steps have done to the parameters."""
        changed = {path for path, (parameter, before) in self._trainable.items() if _bits(parameter) != before}
        values = {path for path, (parameter, _) in self._trainable.items() if not _finite(_local(parameter.detach()))}
        return FirstStepsFacts(
            steps=self.steps,
            skipped=self.skipped,
            trainable=len(self._trainable),
            frozen=len(self._frozen),
            without_gradient=self._paths(set(self._trainable) - self._reached) if self._read else (),
            unchanged=self._paths((self._reached if self._read else set(self._trainable)) - changed) if self.steps else (),
            nonfinite_gradients=self._paths(self._nonfinite),
            nonfinite_values=self._paths(values - self._damaged),
            changed_frozen=tuple(path for path, (parameter, before) in self._frozen.items() if _differs(parameter, before)),
            gradients_read=self._read,
            moved_at_rate=not self._rates or any(self._rates),
        )

    def _paths(self, chosen: set[str]) -> tuple[str, ...]:
        return tuple(path for path in self._trainable if path in chosen)


def _differs(parameter: torch.Tensor, before: _Bits) -> bool:
    """Return whether a frozen parameter has other bits. A layer may store the same weight in another form meanwhile."""
    now = _bits(parameter)
    return now is not None and now[:2] == before[:2] and now != before


class LargestBatch:
    """The largest batch that a model receives, for a comparison of memory."""

    def __init__(self, model: nn.Module) -> None:
        self.shape: tuple[int, int] | None = None
        self._hook = model.register_forward_pre_hook(self._look, with_kwargs=True)

    def _look(self, _: nn.Module, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> None:
        named = [keywords.get("input_ids"), keywords.get("inputs_embeds"), *arguments[:1]]
        shape = next((tuple(one.shape[:2]) for one in named if isinstance(one, torch.Tensor) and one.ndim > 1), None)
        if shape is not None and (self.shape is None or shape[0] * shape[1] > self.shape[0] * self.shape[1]):
            self.shape = (shape[0], shape[1])

    def remove(self) -> None:
        """Stop looking at batches."""
        self._hook.remove()


class Peak:
    """The peak of CUDA memory from now on. The statistics of the process are only read."""

    def __init__(self) -> None:
        self._before = torch.cuda.max_memory_allocated()

    def read(self) -> int | None:
        """Return the peak in bytes; None if an earlier one is higher."""
        peak = int(torch.cuda.max_memory_allocated())
        return peak if peak > self._before else None


def has_cuda(model: nn.Module) -> bool:
    """Return whether any parameter is on a CUDA device."""
    return any(parameter.is_cuda for parameter in model.parameters())
