"""Keeps the output for the report, and the terminal from what names and messages hold."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from collections.abc import Iterator


def shown(text: object) -> str:
    """A line for the terminal: what does not print stands as an escape."""
    from kbitlint.report.text import printable

    return printable(str(text))


def shown_lines(text: str) -> str:
    """As ``shown``, for a text of several lines: a traceback."""
    return "\n".join(map(shown, text.splitlines()))


@contextlib.contextmanager
def kept_for_the_report() -> Iterator[None]:
    """What the audited code and its processes print goes where errors go, so that the output is the report and nothing else."""
    try:
        sys.stdout.flush()
        output = os.dup(1)
    except (OSError, ValueError):  # it is closed
        yield
        return
    errors = sys.stderr
    try:
        os.dup2(2, 1)
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        sys.stderr = errors
        os.dup2(output, 1)
        os.close(output)


def _give_up_output() -> None:
    """After the output has refused what was written: nothing more is written to it when the program ends."""
    with contextlib.suppress(OSError):
        nothing = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nothing, 1)
        os.close(nothing)


class ClearGroup(click.Group):
    """A group whose errors are lines that steer no terminal: usage errors, and a disk or a pipe that takes no more."""

    def make_context(self, *args: Any, **kwargs: Any) -> click.Context:
        """As click does."""
        with _clear():
            return super().make_context(*args, **kwargs)

    def invoke(self, ctx: click.Context) -> Any:
        """As click does."""
        with _clear():
            return super().invoke(ctx)


@contextlib.contextmanager
def _clear() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in (None, errno.EPIPE):  # click knows what to do about a reader that has gone
            raise
        click.echo(shown(f"kbitlint: {error.filename or 'the output'}: {error.strerror or error}"), err=True)
        _give_up_output()
        sys.exit(2)
    except click.UsageError as error:
        raise click.UsageError(shown_lines(error.format_message()), error.ctx) from error
