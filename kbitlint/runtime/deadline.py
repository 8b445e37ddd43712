"""Time limit for work on untrusted data, such as patterns of a configuration that libraries match unchanged."""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator


class OverdueError(Exception):
    """The code inside the context took too much time."""


@contextlib.contextmanager
def deadline(seconds: float) -> Iterator[None]:
    """Stop the code inside the context after some seconds of CPU time.

    Python's pattern matcher checks for signals while it runs (Modules/_sre/sre_lib.h, MAYBE_CHECK_SIGNALS), so it
    stops too. There is a limit only in the main thread of a POSIX system, because only that thread receives signals.

    Raises:
        OverdueError: If the time is over.
    """
    if threading.current_thread() is not threading.main_thread() or sys.platform == "win32":
        yield
        return

    def over(*_: Any) -> None:
        raise OverdueError(f"it takes longer than {seconds:.0f} s")

    before = signal.signal(signal.SIGVTALRM, over)
    left, _ = signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, left)  # of a limit around this one, which starts anew
        signal.signal(signal.SIGVTALRM, before)
