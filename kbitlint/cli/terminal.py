"""What people see: the report alone on the output, errors and progress beside it, and nothing that steers a terminal."""

from __future__ import annotations

import contextlib
import io
import os
import sys
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from kbitlint.errors import KbitlintError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def escape(text: object) -> str:
    """A line for the terminal: what does not print stands as an escape."""
    from kbitlint.output.wording import printable  # --version prints nothing of a user

    return printable(str(text))


def escape_lines(text: str) -> str:
    """As ``shown``, for a text of several lines: a traceback."""
    return "\n".join(map(escape, text.splitlines()))


@contextlib.contextmanager
def reserve_stdout() -> Iterator[None]:
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


def discard(number: int) -> None:
    """After an output has refused what was written: nothing more is written to it when the program ends."""
    with contextlib.suppress(OSError):
        nothing = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nothing, number)
        os.close(nothing)


def open_missing() -> None:
    """Put something in the place of closed standard streams, so that no file that is opened later takes their numbers.

    A closed output refuses what is written to it, as it would; what goes to a closed error stream is lost.
    """
    for number, mode in ((0, os.O_RDONLY), (1, os.O_RDONLY), (2, os.O_WRONLY)):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, mode)  # the lowest number that is free
    if sys.stdout is None:
        sys.stdout = os.fdopen(1, "w", encoding="utf-8", closefd=False)
    if sys.stderr is None:
        sys.stderr = os.fdopen(2, "w", encoding="utf-8", errors="backslashreplace", closefd=False)
    if isinstance(sys.stdout, io.TextIOWrapper):  # a terminal that has no letter for something gets its escape
        sys.stdout.reconfigure(errors="backslashreplace")


def text_layout(path: Path | None) -> tuple[bool, int]:
    """(colour, columns) of a text report: plain and 80 in a file."""
    return (False, 80) if path else (color(), width())


def write_report(text: str, path: Path | None) -> None:
    """Print a report, or write it to a file, whole. Raises KbitlintError where the file cannot be written."""
    if path is None:
        click.echo(text)
        return
    from kbitlint.files import atomic  # only --output-file needs it

    try:
        atomic.replace(path, (text + "\n").encode(errors="backslashreplace"))
    except OSError as error:
        raise KbitlintError(f"--output-file {path}: cannot be written: {error.strerror or error}") from error


def color() -> bool:
    """Whether the output is a terminal that wants colours."""
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR")


def width() -> int:
    """Columns of a text report."""
    import shutil  # only a text report needs it

    return max(60, min(100, shutil.get_terminal_size((80, 24)).columns))


def line_of(error: KbitlintError) -> str:
    """An error as one line for the terminal."""
    return escape(" ".join(str(error).split()))


def show_traceback() -> None:
    """Print the traceback of the exception that is being handled."""
    import traceback  # only --verbose needs it

    click.echo(escape_lines(traceback.format_exc()), err=True)


@contextmanager
def progress(what: str, after: float = 1.0) -> Iterator[None]:
    """Say on a terminal what takes longer than a second."""
    if not sys.stderr.isatty():
        yield
        return
    done = threading.Event()
    start = time.monotonic()

    def show() -> None:
        wait = after
        while not done.wait(wait):
            click.echo(f"\r{escape(what)} ... {time.monotonic() - start:.0f} s", err=True, nl=False)
            wait = 1.0

    thread = threading.Thread(target=show, name="kbitlint progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
        if time.monotonic() - start > after:
            click.echo("\r\x1b[K", err=True, nl=False)
