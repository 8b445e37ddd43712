"""Maps every exception that ends a run to an exit code and one line: 2, or 130 for Ctrl-C, and never 1."""

from __future__ import annotations

import contextlib
import os
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from kbitlint.cli import interrupts
from kbitlint.cli.terminal import discard, escape, escape_lines, line_of, open_missing, show_traceback
from kbitlint.errors import KbitlintError, one_line
from kbitlint.runtime import import_paths

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

EXIT_FAILED = 2
#: the variable with which a shell asks for completions
COMPLETE = "_KBITLINT_COMPLETE"


class _Ended(Exception):  # noqa: N818  # carries any exception past click, which has exit codes of its own
    """An exception that ends the run."""

    def __init__(self, error: BaseException) -> None:
        super().__init__()
        self.error = error


class CommandLine(click.Group):
    """A group whose commands return their exit codes, and whose process ends with one of 0, 1, 2 and 130."""

    def main(self, args: Any = None, prog_name: Any = None, *rest: Any, standalone_mode: bool = True, **more: Any) -> Any:
        """Run the command line and end the process with one of these exit codes."""
        further = {**more, "standalone_mode": False}
        if COMPLETE in os.environ:  # click prints what the shell asked for, and leaves
            return super().main(args, prog_name, *rest, **more)
        if not standalone_mode:
            return super().main(args, prog_name, *rest, **further)
        words = sys.argv[1:] if args is None else list(args)
        verbose = not {"--verbose", "-v"}.isdisjoint(words)
        with interrupts.watched() as seen:
            open_missing()
            with import_paths.closed_to(import_paths.reached_by(())):
                code = code_of(lambda: self._run(seen, args, prog_name, *rest, **further), verbose)
            if seen.count and code != interrupts.EXIT_INTERRUPTED:  # a library has swallowed it
                code = code_of(_interrupt)
            interrupts.leave_with(code)
        sys.exit(code)

    def _run(self, seen: interrupts.watched, *args: Any, **kwargs: Any) -> Any:
        """Run the command. A failure after Ctrl-C is one of what it broke off, such as an import."""
        try:
            return super().main(*args, **kwargs)
        except Exception as error:
            if seen.count:
                raise KeyboardInterrupt from error
            raise

    def make_context(self, *args: Any, **kwargs: Any) -> click.Context:
        """Parse the arguments."""
        with _carried():
            return super().make_context(*args, **kwargs)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        with _carried():
            return super().invoke(ctx)


@contextmanager
def _carried() -> Iterator[None]:
    try:
        yield
    except (click.ClickException, click.exceptions.Exit, _Ended):
        raise
    except BaseException as error:  # code_of maps every exception
        raise _Ended(error) from error


def code_of(run: Callable[[], Any], verbose: bool = False) -> int:  # noqa: FBT001, FBT002
    """Run a command and return its exit code; an exception becomes one line on the error stream.

    Args:
        run: Returns an exit code, or None for 0.
        verbose: Whether to show the traceback too.
    """
    try:
        try:
            code = run()
            sys.stdout.flush()
        except BaseException as error:  # noqa: BLE001  # this function maps all of them
            code = _say(error, verbose=verbose)
    except KeyboardInterrupt:  # Ctrl-C while the line was written
        code = interrupts.EXIT_INTERRUPTED
    with contextlib.suppress(KeyboardInterrupt):
        _settle()
    return code if isinstance(code, int) else 0


def _interrupt() -> None:
    raise KeyboardInterrupt


def _usage(error: click.UsageError) -> str:
    """Return the message of a wrong command line; that of a missing option says what the option takes."""
    about = getattr(error.param, "help", None) if isinstance(error, click.MissingParameter) else None
    return error.format_message() + (f" {about}" if about else "")


def _say(error: BaseException, *, verbose: bool) -> int:
    cause = error.error if isinstance(error, _Ended) else error
    with contextlib.suppress(OSError, ValueError):  # the error stream is closed too
        if verbose and not isinstance(cause, (click.ClickException, KeyboardInterrupt)):
            show_traceback()
        if isinstance(cause, click.UsageError):
            click.UsageError(escape_lines(_usage(cause)), cause.ctx).show()
        else:
            click.echo(_line(cause), err=True)
    return interrupts.EXIT_INTERRUPTED if isinstance(cause, KeyboardInterrupt) else EXIT_FAILED


def _line(error: BaseException) -> str:
    if isinstance(error, KbitlintError):
        return f"kbitlint: {line_of(error)}"
    if isinstance(error, KeyboardInterrupt):
        return interrupts.LINE
    if isinstance(error, MemoryError):
        return "kbitlint: out of memory"
    if isinstance(error, OSError) and error.errno is not None:
        return escape(f"kbitlint: {error.filename or 'the output'}: {error.strerror or error}")
    if isinstance(error, SystemExit):
        return escape(f"kbitlint: code that it imports left the program with exit status {error.code}")
    if isinstance(error, click.ClickException):
        return escape(f"kbitlint: {' '.join(error.format_message().split())}")
    return escape(f"kbitlint: an error of its own, which --verbose shows: {one_line(error)}")


def _settle() -> None:
    """Flush the streams; discard what fails, because it would fail again at exit and change the exit code."""
    for number, stream in ((1, sys.stdout), (2, sys.stderr)):
        try:
            stream.flush()
        except (OSError, ValueError):
            discard(number)
