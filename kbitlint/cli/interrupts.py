"""Ctrl-C at any moment: one line and exit code 130, from the first import to the last write.

This module is imported before all others of the command line, and imports nothing that takes time.
"""

import _thread
import os
import signal
import sys
import time

#: 128 + SIGINT, as shells report a process that Ctrl-C has ended
EXIT_INTERRUPTED = 130
LINE = "kbitlint: interrupted"
#: seconds between the loss of an exception and the next one
_SOON = 0.05


class Watch:
    """Count every Ctrl-C of a run, and repeat one that is swallowed.

    The exception is lost where a callback, a ``__del__`` or an extension module discards it, or an ``except`` that names
    everything. Each import ends in such a callback, which frees its lock (``_get_module_lock`` of importlib).
    """

    def __init__(self) -> None:
        self.count = 0
        self.over = False
        """Whether the command has ended, so that a lost exception is not repeated."""
        self._thread = _thread.get_ident()
        self._unraisable = sys.unraisablehook

    def start(self) -> None:
        """Count from now on, in the main thread of a process in which Python's own handler is installed."""
        sys.unraisablehook = self._written
        _replace((signal.default_int_handler, _leave_at_once), self._arrived)

    def stop(self) -> None:
        """Install Python's own handler again."""
        self.over = True
        _replace((self._arrived,), signal.default_int_handler)
        sys.unraisablehook = self._unraisable

    def _arrived(self, *_: object) -> None:
        self.count += 1
        raise _Interrupt(self)

    def _written(self, lost: "sys.UnraisableHookArgs") -> None:
        """Write an exception that cannot be raised, unless it is one that is repeated."""
        if not isinstance(lost.exc_value, _Interrupt):
            self._unraisable(lost)

    def repeat(self) -> None:
        """Interrupt the run again soon. A new exception here would be as lost as the last one."""
        if not self.over:
            _thread.start_new_thread(self._send, ())

    def _send(self) -> None:
        time.sleep(_SOON)
        if self.over:
            return
        if sys.platform == "win32":
            _thread.interrupt_main()
        else:  # breaks off a call that waits, too
            signal.pthread_kill(self._thread, signal.SIGINT)


class _Interrupt(KeyboardInterrupt):
    """Ctrl-C, once. The object ends when no code handles it any more, so its end in a run that goes on is a loss."""

    def __init__(self, watch: Watch) -> None:
        super().__init__()
        self._watch = watch

    def __del__(self) -> None:
        self._watch.repeat()


class while_importing:  # noqa: N801  # a context manager, and contextlib takes time to import
    """Let Ctrl-C end the process at once: while the command line is imported there is nothing to undo.

    In the command line's own process this holds until a ``Watch`` starts.
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
