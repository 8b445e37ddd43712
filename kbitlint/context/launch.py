"""How a run is spread over cards, in the words of ``kbitlint fit`` and ``kbitlint memory``."""

from __future__ import annotations

from kbitlint.errors import KbitlintError, did_you_mean
from kbitlint.lazy_dataclass import dataclass

#: strategy -> whether it shards (weights, gradients, optimizer state)
SHARDS: dict[str, tuple[bool, bool, bool]] = {
    "single": (False, False, False),
    "ddp": (False, False, False),
    "zero1": (False, False, True),
    "zero2": (False, True, True),
    "zero3": (True, True, True),
    "fsdp1": (True, True, True),
    "fsdp2": (True, True, True),
    "device_map": (False, False, False),
    "tp": (False, False, False),
}
STRATEGIES = tuple(SHARDS)


@dataclass(frozen=True, slots=True)
class Launch:
    """The ranks of a run and what they share."""

    strategy: str = "single"
    ranks: int = 1
    offload: bool = False
    """Whether sharded weights, and the optimizer's state, lie in host memory between uses."""

    @property
    def words(self) -> str:
        """Return the launch in words: ``one of 2 ranks, fsdp2, weights on the host``. Empty for one card."""
        if self.strategy == "single":
            return ""
        one = "the last" if self.strategy == "device_map" else "one"
        of = "cards" if self.strategy == "device_map" else "ranks"
        return f"{one} of {self.ranks} {of}, {self.strategy}" + (", weights on the host" if self.offload else "")

    def __post_init__(self) -> None:
        if self.strategy not in STRATEGIES:
            hint = did_you_mean(self.strategy, STRATEGIES)
            raise KbitlintError(f"strategy {self.strategy!r} is none of {', '.join(STRATEGIES)}{hint}")
        if self.ranks < 1:
            raise KbitlintError(f"gpus must be 1 or more, not {self.ranks}")
        if (self.strategy == "single") != (self.ranks == 1):
            kind = "needs more than one card" if self.ranks == 1 else "uses one card"
            raise KbitlintError(f"strategy {self.strategy!r} {kind}, and there are {self.ranks}: give --gpus and --strategy")
        if self.offload and not SHARDS[self.strategy][0]:
            raise KbitlintError(f"strategy {self.strategy!r} offloads no weights; fsdp1, fsdp2 and zero3 do")
