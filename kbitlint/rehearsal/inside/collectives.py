"""What an exception in ``torch.distributed`` says of the other ranks."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from kbitlint.errors import message_of

if TYPE_CHECKING:
    from types import TracebackType

#: messages of gloo about a rank that is gone, and of torch about ranks that meet in different collectives
_GONE = re.compile(r"[Cc]onnection (was )?(closed|reset)|failed to pass monitoredBarrier|Broken pipe|Timed out waiting|timeout")
_DIFFERENT = re.compile(r"Detected mismatch between collectives on ranks")
_FINGERPRINT = re.compile(
    r"(rank \d+) is running collective: CollectiveFingerPrint\(.*?OpType=(\w+)(?:, TensorShape=(\[.*?\]), TensorDtypes=(\w+))?",
    re.IGNORECASE,
)


def of_other_ranks(error: BaseException) -> tuple[str, bool] | None:
    """Return what other ranks do while this one meets them in a collective, and whether it waits in vain; None otherwise."""
    text = message_of(error)
    if not isinstance(error, RuntimeError) or not _in_collective(error.__traceback__):
        return None
    if _DIFFERENT.search(text):
        runs = sorted(f"{rank.lower()} runs {_named(*what)}" for rank, *what in _FINGERPRINT.findall(text))
        return " and ".join(runs) or "another rank runs another collective", False
    return ("another rank has ended", True) if _GONE.search(text) else None


def _named(operation: str, shape: str, dtypes: str) -> str:
    return f"{operation.lower()} of {dtypes.lower()} {shape}" if shape else operation.lower()


def is_of_gloo(error: BaseException) -> bool:
    """Return whether gloo refuses a collective, which NCCL may run."""
    return "gloo" in message_of(error).lower() and _in_collective(error.__traceback__)


def _in_collective(traceback: TracebackType | None) -> bool:
    """Return whether an exception passed through ``torch.distributed``, or through DDP's native check of ``ranks.py``."""
    while traceback is not None:
        name = str(traceback.tb_frame.f_globals.get("__name__", ""))
        if name.startswith(("torch.distributed", "kbitlint.rehearsal.stand_ins.ranks")):
            return True
        traceback = traceback.tb_next
    return False
