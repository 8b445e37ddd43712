"""Ctrl-C at any moment: one line and exit code 130, from the first import to the last write.

This module is imported before all others of the command line, and imports nothing but what is built in or small.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

#: 128 + SIGINT, as shells report a process that Ctrl-C has ended
EXIT_INTERRUPTED = 130
LINE = "kbitlint: interrupted"


class Interrupts:
    """What Ctrl-C did while it was watched: libraries may swallow the exception that it raises."""

    def __init__(self) -> None:
        self.count = 0

    def arrived(self, number: int, frame: Any) -> None:
        """Raise KeyboardInterrupt, as Python's own handler does."""
        self.count += 1
        signal.default_int_handler(number, frame)


def leave_at_once(*_: Any) -> None:
    """End the process with the line: while the command line is imported there is nothing to undo."""
    try:
        os.write(2, f"{LINE}\n".encode())
    finally:
        os._exit(EXIT_INTERRUPTED)


@contextmanager
def watched() -> Iterator[Interrupts]:
    """Count every Ctrl-C, where Python's own handler is in place and this is the thread that it interrupts."""
    interrupts = Interrupts()
    before = _is_ours() and signal.signal(signal.SIGINT, interrupts.arrived)
    try:
        yield interrupts
    finally:
        if before:
            signal.signal(signal.SIGINT, before)


def leave_with(code: int) -> None:
    """Let Ctrl-C end the process at once with this exit code from now on, where the process is the command line's own.

    The code is decided, and all that is left is to take the interpreter down, or to wait for threads of a function.
    """
    program = sys.argv[0]
    own = os.path.basename(program).startswith("kbitlint") or program.endswith(os.path.join("kbitlint", "__main__.py"))  # noqa: PTH118, PTH119
    if own and _is_ours():
        signal.signal(signal.SIGINT, lambda *_: os._exit(code))


@contextmanager
def while_importing() -> Iterator[None]:
    """Let Ctrl-C end the process at once."""
    before = _is_ours() and signal.signal(signal.SIGINT, leave_at_once)
    try:
        yield
    finally:
        if before:
            signal.signal(signal.SIGINT, before)


def _is_ours() -> bool:
    return (
        threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGINT) is signal.default_int_handler
    )
