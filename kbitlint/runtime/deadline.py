"""An end to what somebody else's data makes slow: patterns of a configuration that libraries match as they are."""

from __future__ import annotations

import contextlib
import signal
import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator


class OverdueError(Exception):
    """What ran took more time than it may."""


@contextlib.contextmanager
def deadline(seconds: float) -> Iterator[None]:
    """Stop what runs inside after so many seconds of CPU time.

    Python's pattern matcher looks at signals while it runs (Modules/_sre/sre_lib.h, MAYBE_CHECK_SIGNALS), so that it stops
    too. Signals reach the main thread of a POSIX system only; elsewhere there is no end.

    Raises:
        OverdueError: The time is over.
    """
    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "setitimer"):
        yield
        return

    def over(*_: Any) -> None:
        raise OverdueError(f"it takes longer than {seconds:.0f} s")

    before = signal.signal(signal.SIGVTALRM, over)
    signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)
