"""How ranks tell each other what they saw, without waiting for one that is gone.

A collective would hang, or die without a name, when one rank does not take part. So every rank writes its record to
the key-value store that torch.distributed meets in, waits for the others' records with a deadline, and whoever is
first to know writes down which ranks answered: all ranks then agree on that, also one that comes late.
"""

from __future__ import annotations

import os
import pickle
import socket
import sys
import time
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from kbitlint.errors import KbitlintError, one_line

if TYPE_CHECKING:
    from collections.abc import Mapping

DEFAULT_TIMEOUT = 300.0
"""Seconds that a rank waits for the others after it has finished itself."""
_POLL = 0.05


@dataclass(frozen=True, slots=True)
class Group:
    """The ranks of a run and the store they meet in."""

    store: Any
    rank: int
    world_size: int


@dataclass(frozen=True, slots=True)
class Answers:
    """What the ranks told."""

    records: Mapping[int, Any]
    lost: Mapping[int, str]
    """Ranks that did not answer, and what is known of each."""


def world_size() -> int:
    """How many processes the launcher started; 1 where there is no launcher."""
    try:
        return int(os.environ.get("WORLD_SIZE", "1"))
    except ValueError:
        return 1


def group(timeout: float = DEFAULT_TIMEOUT) -> Group | None:
    """The ranks of this run: those of the process group, or of the launcher; None where there is one process.

    Raises:
        KbitlintError: The launcher names ranks that cannot be met.
    """
    if world_size() == 1 and "torch.distributed" not in sys.modules:
        return None
    import torch.distributed as dist  # ranks have imported torch; one process need not

    if not dist.is_available():
        return None
    if dist.is_initialized():
        if dist.get_world_size() == 1:
            return None
        store = dist.distributed_c10d._get_default_store()  # noqa: SLF001  # torch has no public way to the store
        return Group(store, dist.get_rank(), dist.get_world_size())
    if world_size() == 1:
        return None
    try:
        store, rank, world = next(iter(dist.rendezvous("env://", timeout=timedelta(seconds=timeout))))
    except Exception as error:
        raise KbitlintError(
            f"the {world_size()} ranks that WORLD_SIZE names cannot be met: {one_line(error)}; unset WORLD_SIZE to audit alone"
        ) from error
    return Group(store, int(rank), int(world))


_calls = 0


def exchange(ranks: Group, record: Any, timeout: float = DEFAULT_TIMEOUT) -> Answers:
    """Tell the other ranks a record and hear theirs; every rank that lives hears the same.

    Args:
        ranks: The group.
        record: What this rank tells; it is pickled.
        timeout: Seconds to wait for the others.
    """
    global _calls  # noqa: PLW0603  # every rank counts its calls, so that each exchange has keys of its own
    _calls += 1
    prefix = f"kbitlint/{_calls}"
    try:
        ranks.store.set(f"{prefix}/record/{ranks.rank}", pickle.dumps(record))
        answered = _wait(ranks, prefix, timeout)
        heard = Answers(
            {rank: pickle.loads(ranks.store.get(f"{prefix}/record/{rank}")) for rank in answered},  # noqa: S301  # our own ranks wrote it
            {rank: _last_seen(ranks, rank) for rank in range(ranks.world_size) if rank not in answered},
        )
        _leave(ranks, prefix, len(answered))
    except Exception as error:  # noqa: BLE001  # whatever the store raises, its host is gone
        lost = dict.fromkeys(range(ranks.world_size), f"the store that the ranks meet in is gone: {one_line(error)}")
        del lost[ranks.rank]
        return Answers({ranks.rank: record}, lost)
    return heard


def announce(ranks: Group) -> None:
    """Leave a trace for the others before the audit starts, so that a rank that dies in it can be named."""
    try:
        ranks.store.set(f"kbitlint/present/{ranks.rank}", f"process {os.getpid()} on {socket.gethostname()}")
    except Exception as error:
        raise KbitlintError(f"the store that the ranks meet in cannot be reached: {one_line(error)}") from error


def _wait(ranks: Group, prefix: str, timeout: float) -> list[int]:
    """The ranks that answered before the deadline, as all ranks agree on them."""
    deadline = time.monotonic() + timeout
    keys = [f"{prefix}/record/{rank}" for rank in range(ranks.world_size)]
    while time.monotonic() < deadline and not ranks.store.check([f"{prefix}/verdict"]):
        if ranks.store.check(keys):
            break
        time.sleep(_POLL)
    answered = [rank for rank, key in enumerate(keys) if ranks.store.check([key])]
    verdict = ranks.store.compare_set(f"{prefix}/verdict", "", " ".join(map(str, answered)))
    return [int(rank) for rank in verdict.decode().split()]


def _last_seen(ranks: Group, rank: int) -> str:
    key = f"kbitlint/present/{rank}"
    if not ranks.store.check([key]):
        return "it never started its audit"
    return f"{ranks.store.get(key).decode()} hangs in its audit or died"


def _leave(ranks: Group, prefix: str, answered: int, patience: float = 10.0) -> None:
    """Let the rank that hosts the store leave last."""
    left = ranks.store.add(f"{prefix}/left", 1)
    deadline = time.monotonic() + patience
    while left < answered and time.monotonic() < deadline and ranks.rank == 0:
        time.sleep(_POLL)
        left = ranks.store.add(f"{prefix}/left", 0)
