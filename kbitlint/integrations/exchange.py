"""An exchange of records between the ranks of a run, which ends even if a rank is lost.

If a rank is missing, a collective hangs, or fails without naming that rank. So each rank writes its record to the
key-value store of torch.distributed and waits for the other records until a deadline. The first rank that is done writes
the list of answers to the store. All ranks then use that list, including ranks that answer late.
"""

from __future__ import annotations

import os
import socket
import sys
import time
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from kbitlint.errors import KbitlintError, one_line
from kbitlint.integrations import records
from kbitlint.lazy_dataclass import dataclass

if TYPE_CHECKING:
    from collections.abc import Mapping

DEFAULT_TIMEOUT = 300.0
"""Seconds that a rank waits for the others after its own audit."""
_POLL = 0.05
_ENDING = 1.0
"""Seconds in which a process that leaves has ended."""


@dataclass(frozen=True, slots=True)
class Group:
    """The ranks of a run, and the key-value store that they share."""

    store: Any
    rank: int
    world_size: int


@dataclass(frozen=True, slots=True)
class Answers:
    """The answers of the ranks to one exchange."""

    records: Mapping[int, Any]
    """The record of each rank that answered."""
    lost: Mapping[int, str]
    """The last known state of each rank that did not answer."""


def world_size() -> int:
    """Return the number of processes that the launcher started; 1 without a launcher."""
    try:
        return int(os.environ.get("WORLD_SIZE", "1"))
    except ValueError:
        return 1


def group(timeout: float = DEFAULT_TIMEOUT) -> Group | None:
    """Return the ranks of the process group, or else of the launcher; None if this run has one process.

    Args:
        timeout: Seconds to wait for the store of the launcher.

    Raises:
        KbitlintError: The launcher started several ranks, and their store cannot be reached.
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
    """Send a record to the other ranks, and return their records; every live rank returns the same ones.

    If the store fails, this rank returns its own record and reports every other rank as lost.

    Args:
        ranks: The group.
        record: The record of this rank: frozen dataclasses of kbitlint, enums and plain values.
        timeout: Seconds to wait for the others.
    """
    global _calls  # noqa: PLW0603  # every rank counts its calls, so each exchange has its own keys
    _calls += 1
    prefix = f"kbitlint/{_calls}"
    try:
        ranks.store.set(f"{prefix}/record/{ranks.rank}", records.dumps(record))
        answered = _wait(ranks, prefix, timeout)
        heard = Answers(
            {rank: records.loads(ranks.store.get(f"{prefix}/record/{rank}")) for rank in answered},
            {rank: _last_seen(ranks, rank) for rank in range(ranks.world_size) if rank not in answered},
        )
        _leave(ranks, prefix, len(answered))
    except Exception as error:  # noqa: BLE001  # every error of the store means that its host is gone
        lost = dict.fromkeys(range(ranks.world_size), f"the store that the ranks meet in is gone: {one_line(error)}")
        del lost[ranks.rank]
        return Answers({ranks.rank: record}, lost)
    return heard


def announce(ranks: Group) -> None:
    """Write a mark to the store before the audit, so that the other ranks can name a rank that dies in it.

    Raises:
        KbitlintError: The store cannot be reached.
    """
    try:
        ranks.store.set(f"kbitlint/present/{ranks.rank}", f"process {os.getpid()} on {socket.gethostname()}")
    except Exception as error:
        raise KbitlintError(f"the store that the ranks meet in cannot be reached: {one_line(error)}") from error


def _wait(ranks: Group, prefix: str, timeout: float) -> list[int]:
    """Return the ranks that answered before the deadline; all ranks agree on them."""
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


def leave(ranks: Group, *, speaks: bool, patience: float = 60.0) -> None:
    """Return when this rank may end its process: a launcher ends all ranks as soon as one leaves with an error.

    The ranks that are silent wait until the report is out, and leave; the rank that speaks leaves after them.

    Args:
        ranks: The group.
        speaks: Whether this rank has written the report.
        patience: The most seconds to wait for the others.
    """
    deadline = time.monotonic() + patience
    try:
        if not speaks:
            ranks.store.wait(["kbitlint/out"], timedelta(seconds=patience))
            ranks.store.add("kbitlint/gone", 1)
            return
        ranks.store.set("kbitlint/out", "")
        while ranks.store.add("kbitlint/gone", 0) < ranks.world_size - 1 and time.monotonic() < deadline:
            time.sleep(_POLL)
        time.sleep(_ENDING)
    except Exception:  # noqa: BLE001  # the store is gone with its host: there is nobody left to wait for
        return


def _leave(ranks: Group, prefix: str, answered: int, patience: float = 10.0) -> None:
    """Wait on rank 0, which hosts the store, until the other ranks have read the records."""
    left = ranks.store.add(f"{prefix}/left", 1)
    deadline = time.monotonic() + patience
    while left < answered and time.monotonic() < deadline and ranks.rank == 0:
        time.sleep(_POLL)
        left = ranks.store.add(f"{prefix}/left", 0)
