"""Terminal output. The report goes to stdout; errors and progress go to stderr.

Control characters in names that users supply are escaped.
"""

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
from kbitlint.runtime import amount

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


def escape(text: object) -> str:
    """Return a line for the terminal with its control characters escaped."""
    from kbitlint.output.wording import printable  # --version prints nothing of a user

    return printable(str(text))


def escape_lines(text: str) -> str:
    """Return a text of several lines with the control characters of each escaped."""
    return "\n".join(map(escape, text.splitlines()))


@contextlib.contextmanager
def reserve_stdout() -> Iterator[None]:
    """Redirect the stdout of the audited code and its processes to stderr, so that stdout holds the report alone."""
    try:
        sys.stdout.flush()
        output = os.dup(1)
    except (OSError, ValueError):  # stdout is closed
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
    """Redirect a stream that failed to the null device, so that nothing is written to it when the program ends."""
    with contextlib.suppress(OSError):
        nothing = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nothing, number)
        os.close(nothing)


def open_missing() -> None:
    """Open closed standard streams, so that no file that is opened later gets their numbers.

    A write to a closed stdout still fails; a write to a closed stderr is lost.
    """
    for number, mode in ((0, os.O_RDONLY), (1, os.O_RDONLY), (2, os.O_WRONLY)):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, mode)  # gets the lowest free number
    if sys.stdout is None:
        sys.stdout = os.fdopen(1, "w", encoding="utf-8", closefd=False)
    if sys.stderr is None:
        sys.stderr = os.fdopen(2, "w", encoding="utf-8", errors="backslashreplace", closefd=False)
    if isinstance(sys.stdout, io.TextIOWrapper):  # characters that the terminal cannot encode are escaped
        sys.stdout.reconfigure(errors="backslashreplace")


def text_layout(path: Path | None) -> tuple[bool, int]:
    """Return (colour, columns) of a text report; no colour and 80 columns for a file."""
    return (False, 80) if path else (color(), width())


def write_report(text: str, path: Path | None) -> None:
    """Print a report, or write it to a file atomically.

    Raises:
        KbitlintError: The file cannot be written.
    """
    if path is None:
        click.echo(text)
        return
    from kbitlint.files import atomic  # only --output-file needs it

    try:
        atomic.replace(path, (text + "\n").encode(errors="backslashreplace"))
    except OSError as error:
        raise KbitlintError(f"--output-file {path}: cannot be written: {error.strerror or error}") from error


def color() -> bool:
    """Return whether the output has colours: NO_COLOR forbids them, FORCE_COLOR demands them, else a terminal has them."""
    if os.environ.get("NO_COLOR"):
        return False
    forced = os.environ.get("FORCE_COLOR")
    return forced != "0" if forced else sys.stdout.isatty() and os.environ.get("TERM") != "dumb"


def width() -> int:
    """Return the columns of a text report."""
    import shutil  # only a text report needs it

    return max(40, min(100, shutil.get_terminal_size((80, 24)).columns))


def line_of(error: KbitlintError) -> str:
    """Return an error as one line for the terminal."""
    return escape(" ".join(str(error).split()))


def show_traceback() -> None:
    """Print the traceback of the exception that is being handled."""
    import traceback  # only --verbose needs it

    click.echo(escape_lines(traceback.format_exc()), err=True)


@contextmanager
def progress(what: str, after: float = 2.0) -> Iterator[Callable[[str], None]]:
    """Show a line on the terminal while the body runs for longer than ``after`` seconds.

    Yield a function that shows a first result above that line. Off a terminal it shows nothing.
    """
    if not sys.stderr.isatty():
        yield lambda _: None
        return
    done = threading.Event()
    start = time.monotonic()

    def show() -> None:
        wait = after
        while not done.wait(wait):
            click.echo(f"\r{escape(what)} ...{amount.text()} {time.monotonic() - start:.0f} s\x1b[K", err=True, nl=False)
            wait = 1.0

    thread = threading.Thread(target=show, name="kbitlint progress", daemon=True)
    thread.start()
    try:
        yield lambda text: click.echo(f"\r\x1b[K{escape(text)}", err=True)
    finally:
        done.set()
        thread.join()
        if time.monotonic() - start > after:
            click.echo("\r\x1b[K", err=True, nl=False)
