"""Maps every exception that ends a run to an exit code and one line: 2, or 130 for Ctrl-C, and never 1."""

from __future__ import annotations

import contextlib
import os
import sys
from typing import TYPE_CHECKING, Any

import click

from kbitlint.cli import interrupts
from kbitlint.cli.terminal import discard, escape, escape_lines, line_of, open_missing, show_traceback
from kbitlint.errors import KbitlintError, one_line
from kbitlint.runtime import import_paths

if TYPE_CHECKING:
    from collections.abc import Callable

EXIT_FAILED = 2
#: the variable with which a shell asks for completions
COMPLETE = "_KBITLINT_COMPLETE"


class CommandLine(click.Group):
    """A group whose commands return their exit codes, and whose process ends with one of 0, 1, 2 and 130."""

    def main(self, args: Any = None, prog_name: Any = None, *rest: Any, standalone_mode: bool = True, **more: Any) -> Any:
        """Run the command line and end the process with one of these exit codes."""
        if COMPLETE in os.environ:  # click prints what the shell asked for, and leaves
            return super().main(args, prog_name, *rest, **more)
        if not standalone_mode:
            return super().main(args, prog_name, *rest, **{**more, "standalone_mode": False})
        words = _expanded(sys.argv[1:]) if args is None else list(args)
        verbose = not {"--verbose", "-v"}.isdisjoint(words)
        with import_paths.closed_to(import_paths.reached_by(())):
            code = _watched(lambda watch: self._run(watch, prog_name or "kbitlint", words, **more), verbose)
        sys.exit(code)

    def _run(self, watch: interrupts.Watch, *arguments: Any, **more: Any) -> Any:
        """Run the command as click's own ``main`` does, which has exit codes and an empty line of its own for Ctrl-C.

        A failure after Ctrl-C is one of what it broke off, such as an import.
        """
        try:
            open_missing()
            with self.make_context(*arguments, **more) as context:
                return self.invoke(context)
        except click.exceptions.Exit as left:
            return left.exit_code
        except Exception as error:
            if watch.count:
                raise KeyboardInterrupt from error
            raise
        finally:
            watch.over = True


def _expanded(words: list[str]) -> list[str]:
    """Return the arguments as a shell would pass them. That of Windows leaves patterns to the program."""
    return click.utils._expand_args(words) if sys.platform == "win32" else words  # noqa: SLF001  # click's main does this


def _watched(run: Callable[[interrupts.Watch], Any], verbose: bool) -> int:  # noqa: FBT001
    """Run a command and return its exit code, wherever in these lines Ctrl-C arrives."""
    watch, code = interrupts.Watch(), None
    try:
        watch.start()
        code = code_of(lambda: run(watch), verbose)
        if watch.count and code != interrupts.EXIT_INTERRUPTED:  # a library has swallowed it
            code = code_of(_interrupt)
        interrupts.leave_with(code)
    except KeyboardInterrupt:
        code = code_of(_interrupt) if code is None else code
        interrupts.leave_with(code)
    finally:
        watch.stop()
    return code


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
    with contextlib.suppress(OSError, ValueError):  # the error stream is closed too
        if verbose and not isinstance(error, (click.ClickException, KeyboardInterrupt)):
            show_traceback()
        if isinstance(error, click.UsageError):
            click.UsageError(escape_lines(_usage(error)), error.ctx).show()
        else:
            click.echo(_line(error), err=True)
    return interrupts.EXIT_INTERRUPTED if isinstance(error, KeyboardInterrupt) else EXIT_FAILED


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
