"""Ctrl-C at any moment: one line and exit code 130, from the first import to the last write.

This module is imported before all others of the command line, and imports nothing that takes time.
"""

import os
import signal
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import FrameType

#: 128 + SIGINT, as shells report a process that Ctrl-C has ended
EXIT_INTERRUPTED = 130
LINE = "kbitlint: interrupted"


class watched:  # noqa: N801  # a context manager, and contextlib takes time to import
    """Count every Ctrl-C: libraries may swallow the exception that it raises."""

    def __init__(self) -> None:
        self.count = 0

    def __enter__(self) -> "watched":  # noqa: PYI034  # Self is new in 3.11
        self._replaced = _replace(signal.default_int_handler, self._arrived)
        return self

    def __exit__(self, *_: object) -> None:
        if self._replaced:
            signal.signal(signal.SIGINT, signal.default_int_handler)

    def _arrived(self, number: int, frame: "FrameType | None") -> None:
        self.count += 1
        signal.default_int_handler(number, frame)


class while_importing:  # noqa: N801  # as above
    """Let Ctrl-C end the process at once: while the command line is imported there is nothing to undo."""

    def __enter__(self) -> None:
        self._replaced = _replace(signal.default_int_handler, _leave_at_once)

    def __exit__(self, *_: object) -> None:
        if self._replaced:
            signal.signal(signal.SIGINT, signal.default_int_handler)


def leave_with(code: int) -> None:
    """Let Ctrl-C end the process at once with this exit code from now on, where the process is the command line's own.

    The code is decided, and all that is left is to take the interpreter down, or to wait for threads of a function.
    """
    program = sys.argv[0]
    if os.path.basename(program).startswith("kbitlint") or program.endswith(f"kbitlint{os.sep}__main__.py"):  # noqa: PTH119
        _replace(signal.default_int_handler, lambda *_: os._exit(code))


def _leave_at_once(*_: object) -> None:
    try:
        os.write(2, f"{LINE}\n".encode())
    finally:
        os._exit(EXIT_INTERRUPTED)


def _replace(expected: object, handler: object) -> bool:
    """Install a handler where the expected one is in place and this is the thread that Ctrl-C interrupts."""
    if signal.getsignal(signal.SIGINT) is not expected:
        return False
    try:
        signal.signal(signal.SIGINT, handler)  # type: ignore[arg-type]  # a function of a number and a frame
    except ValueError:  # not the main thread
        return False
    return True
