"""The bytes that live at each moment of a traced step."""

from __future__ import annotations

import weakref
from dataclasses import field
from typing import TYPE_CHECKING, Any, NamedTuple

from kbitlint.lazy_dataclass import dataclass

if TYPE_CHECKING:
    from torch import Tensor

#: torch's CUDA allocator gives out multiples of so many bytes (``kMinBlockSize``)
CUDA_BLOCK = 512


class Alive(NamedTuple):
    """The bytes that live at one moment, and parts of them by kind."""

    total: int
    activations: int = 0
    """Saved for the backward pass by the layers and what runs before them."""
    logits: int = 0
    """Saved for the backward pass by the head and the loss."""
    gradients: int = 0


@dataclass(slots=True)
class LiveBytes:
    """The bytes of all live storages, their peak, and the peak at each moment."""

    block: int = 1
    """Each storage takes a multiple of so many bytes."""
    now: int = 0
    peak: int = 0
    peak_at: str = ""
    """The module and pass that ran at the peak."""
    at: str = ""
    """The module and pass that run now."""
    layer: str = ""
    """The layer whose backward pass runs. It names moments in which no module runs, which backward has many of."""
    ends: frozenset[str] = frozenset()
    """Paths of the modules that compute logits and loss."""
    moments: dict[str, Alive] = field(default_factory=dict)
    """The most bytes at each moment, in the order in which the moments came first."""
    _held: dict[str, int] = field(default_factory=lambda: dict.fromkeys(Alive._fields[1:], 0))
    """Live bytes by kind."""
    _kinds: dict[int, str] = field(default_factory=dict)
    """The kind of a live storage, by its address."""
    _alive: dict[int, tuple[weakref.ref[Any], int]] = field(default_factory=dict)
    """(weak reference, bytes) of each live storage, by its address."""

    def name(self, moment: str) -> None:
        """Set the module and pass that run from now on."""
        self.at = f"{self.layer}, backward" if self.layer and moment.startswith("the model,") else moment
        self._raise()

    def enter_backward(self, layer: str) -> None:
        """Set the layer whose backward pass runs from now on."""
        self.layer = layer
        self.name("the model, backward")

    def see(self, tensor: Tensor) -> None:
        """Count a tensor's storage until it is freed."""
        storage = tensor.untyped_storage()
        key = storage._cdata  # noqa: SLF001  # the only identity of a storage
        if key in self._alive:
            return
        nbytes = -(-storage.nbytes() // self.block) * self.block
        self._alive[key] = (weakref.ref(storage, lambda _: self._free(key)), nbytes)
        self.now += nbytes
        self._raise()

    def keep(self, tensor: Tensor, where: str) -> None:
        """Count a tensor's storage as saved for the backward pass by the module at a path."""
        self._mark(tensor, "logits" if where in self.ends else "activations")

    def accumulate(self, parameter: Tensor) -> None:
        """Count the storage of a parameter's gradient as one."""
        if parameter.grad is not None:
            self._mark(parameter.grad, "gradients")

    def _mark(self, tensor: Tensor, kind: str) -> None:
        key = tensor.untyped_storage()._cdata  # noqa: SLF001  # as in see()
        if key in self._alive and key not in self._kinds:
            self._kinds[key] = kind
            self._held[kind] += self._alive[key][1]

    def own(self, tensor: Tensor) -> None:
        """Exclude a tensor that counts among the resident ones."""
        self._alive[tensor.untyped_storage()._cdata] = (weakref.ref(tensor.untyped_storage()), 0)  # noqa: SLF001  # see above

    def _raise(self) -> None:
        known = self.moments.get(self.at)
        if known is None or self.now > known.total:
            self.moments[self.at] = Alive(self.now, *self._held.values())
            if self.now > self.peak:
                self.peak, self.peak_at = self.now, self.at

    def _free(self, key: int) -> None:
        nbytes = self._alive.pop(key)[1]
        self.now -= nbytes
        if key in self._kinds:
            self._held[self._kinds.pop(key)] -= nbytes
