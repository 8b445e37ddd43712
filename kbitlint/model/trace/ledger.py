"""The ledger of a traced step: refused dtypes, guessed values, and where each parameter was used."""

from __future__ import annotations

from collections import Counter
from dataclasses import field
from typing import TYPE_CHECKING, Any

from kbitlint.facts.layers import short_name
from kbitlint.facts.trace import RefusalFacts
from kbitlint.lazy_dataclass import dataclass
from kbitlint.model.trace.zeros import Zeros, storage_key

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch
    from torch import Tensor

    from kbitlint.model.trace.guard import Guard


@dataclass(frozen=True, slots=True)
class Refusal:
    """A call of a kernel that would raise for the dtypes of its arguments."""

    where: str
    """The path of the module that ran."""
    operator: str
    dtypes: tuple[torch.dtype, ...]
    """The dtypes of the operands, in their order."""
    in_backward: bool


@dataclass(slots=True)
class Ledger:
    """The events of one traced step."""

    device: str
    """The device whose kernels are simulated: ``cpu`` or ``cuda``."""
    where: Callable[[], str] = lambda: ""
    """Returns the path of the module that runs."""
    in_backward: bool = False
    refusals: dict[tuple[str, str], Refusal] = field(default_factory=dict)
    """The first refusal of each (module path, operator)."""
    guesses: Counter[str] = field(default_factory=Counter)
    """How often an unknown value was read, by the kind of read."""
    watched: dict[int, Tensor] = field(default_factory=dict)
    """The parameters at which a gradient is expected, by id."""
    used: dict[int, str] = field(default_factory=dict)
    """The path of the module that first used each watched parameter while gradients were recorded."""
    used_without_grad: dict[int, str] = field(default_factory=dict)
    """The same for uses under ``torch.no_grad`` or ``torch.inference_mode``."""
    packed: dict[int, str] = field(default_factory=dict)
    """Paths of the quantized layers, by the storage of their packed weight, which ``.data`` and views share.

    Only a stub may read a packed weight.
    """
    packed_dtypes: frozenset[torch.dtype] = frozenset()
    """The dtypes of these weights."""
    packed_reads: dict[tuple[str, str], str] = field(default_factory=dict)
    """(quantized layer, module that reads its packed weight) -> operator."""
    mixes_packed: bool = False
    """Whether packed integers reach a product with floating-point numbers, which no kernel accepts."""
    detached: list[tuple[str, Tensor]] = field(default_factory=list)
    """(module, tensor) of each detach of a tensor that requires grad."""
    compared: set[int] = field(default_factory=set)
    """The numbers with which known integers were compared, such as the token that announces an image."""
    allocated: Callable[[Tensor], None] | None = None
    """Receives every tensor that an operator returns. None if no observer counts memory."""
    zeros: Zeros = field(default_factory=Zeros)
    """The tensors that are zero in every step."""
    undefined_loss: bool = False
    """Whether the loss is the mean of no elements."""
    guard: Guard | None = None
    """Raises if an operator uses a tensor of the original model. None checks nothing."""
    last: Any = ""
    """The operator that ran last. It is empty before the first one."""

    @property
    def last_operator(self) -> str:
        """The name of the operator that ran last. It is built on access, since a step runs some ten thousand operators."""
        return str(self.last)

    def packed_path(self, tensor: Tensor) -> str:
        """Return the path of the quantized layer whose packed weight a tensor is, or an empty string."""
        return self.packed.get(storage_key(tensor), "") if tensor.dtype in self.packed_dtypes else ""

    def guess(self, what: str) -> None:
        """Count one read of an unknown value. The real value may differ from the answer."""
        self.guesses[what] += 1

    def refused(self) -> tuple[RefusalFacts, ...]:
        """Return the refusals as facts, in the order of their calls."""
        return tuple(
            RefusalFacts(one.where, one.operator, tuple(map(short_name, one.dtypes)), one.in_backward)
            for one in self.refusals.values()
        )
