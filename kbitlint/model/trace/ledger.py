"""What a run without weights has to remember: refused dtypes, guessed values, which parameters were used where."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch
    from torch import Tensor

    from kbitlint.model.trace.guard import Guard


@dataclass(frozen=True, slots=True)
class Refusal:
    """A kernel that would refuse the dtypes it was given."""

    where: str
    operator: str
    dtypes: tuple[torch.dtype, ...]
    in_backward: bool


@dataclass(slots=True)
class Ledger:
    """What a run without weights has to remember."""

    device: str
    """Whose kernels are stood in for: ``cpu`` or ``cuda``."""
    where: Callable[[], str] = lambda: ""
    """The path of the module that runs."""
    in_backward: bool = False
    refusals: dict[tuple[str, str], Refusal] = field(default_factory=dict)
    guesses: Counter[str] = field(default_factory=Counter)
    watched: dict[int, Tensor] = field(default_factory=dict)
    """The parameters of interest, by id."""
    used: dict[int, str] = field(default_factory=dict)
    """Where each watched parameter was first computed with while gradients were recorded."""
    used_without_grad: dict[int, str] = field(default_factory=dict)
    packed: dict[int, str] = field(default_factory=dict)
    """Paths of the packed weights, by id: no operator but a stand-in should meet one."""
    packed_reads: dict[tuple[str, str], str] = field(default_factory=dict)
    """(packed weight, module that reads it) -> operator."""
    detached: list[tuple[str, Tensor]] = field(default_factory=list)
    """(module, tensor) of every detach of a tensor that requires grad."""
    allocated: Callable[[Tensor], None] | None = None
    """Told of every tensor that an operator gives."""
    guard: Guard | None = None
    """Refuses operators on tensors of the model that the run is on a copy of."""
    last: Any = ""
    """The operator that ran last."""

    @property
    def last_operator(self) -> str:
        """Its name; made when it is asked for, because a step runs some ten thousand operators."""
        return str(self.last)

    def guess(self, what: str) -> None:
        """Count an answer that the real values might contradict."""
        self.guesses[what] += 1
