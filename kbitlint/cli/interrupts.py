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
        _replace((signal.default_int_handler, _leave_at_once), self._arrived)
        return self

    def __exit__(self, *_: object) -> None:
        _replace((self._arrived,), signal.default_int_handler)

    def _arrived(self, number: int, frame: "FrameType | None") -> None:
        self.count += 1
        signal.default_int_handler(number, frame)


class while_importing:  # noqa: N801  # as above
    """Let Ctrl-C end the process at once: while the command line is imported there is nothing to undo.

    In the command line's own process this holds until it is ``watched``.
    """

    def __enter__(self) -> None:
        _replace((signal.default_int_handler,), _leave_at_once)

    def __exit__(self, *_: object) -> None:
        if not _is_own_process():
            _replace((_leave_at_once,), signal.default_int_handler)


def leave_with(code: int) -> None:
    """Let Ctrl-C end the command line's own process at once with this exit code from now on.

    The code is decided, and all that is left is to take the interpreter down, or to wait for threads of a function.
    """
    if _is_own_process() and signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:  # background runs ignore it
        signal.signal(signal.SIGINT, lambda *_: os._exit(code))


def _is_own_process() -> bool:
    program = sys.argv[0]
    return os.path.basename(program).startswith("kbitlint") or program.endswith(f"kbitlint{os.sep}__main__.py")  # noqa: PTH119


def _leave_at_once(*_: object) -> None:
    try:
        os.write(2, f"{LINE}\n".encode())
    finally:
        os._exit(EXIT_INTERRUPTED)


def _replace(expected: "tuple[object, ...]", handler: object) -> None:
    """Install a handler if one of the expected ones is installed and this is the main thread."""
    if signal.getsignal(signal.SIGINT) in expected:
        try:
            signal.signal(signal.SIGINT, handler)  # type: ignore[arg-type]  # a function of a number and a frame
        except ValueError:  # not the main thread
            return
