"""Runs of ``kbitlint check`` on sources that end otherwise than with a report: a text of an editor, new ignore comments."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from kbitlint import registry
from kbitlint.cli.terminal import escape
from kbitlint.errors import KbitlintError
from kbitlint.limits import held_to
from kbitlint.output.wording import plural
from kbitlint.target import SOURCES, Target, parse, text_as
from kbitlint.violation import Safety, Severity

if TYPE_CHECKING:
    from collections.abc import Iterable

    from kbitlint.cli.check_options import CheckOptions
    from kbitlint.config import Config

STDIN = "-"
_NAME = "stdin.py"


def from_stdin(options: CheckOptions) -> Target:
    """Return the text on the standard input as a target."""
    if sys.stdin is None:  # as Python leaves a descriptor that is closed
        raise KbitlintError("the standard input is closed: there is no text to read")
    return text_as(options.stdin_filename or _NAME, sys.stdin.buffer.read())


def print_fixed(target: Target, options: CheckOptions, settings: Config) -> bool:
    """Print the text of a target after its fixes, as bytes, and return whether it differs."""
    from kbitlint.fixes.files import mend  # an audit changes nothing

    rules = registry.select(options.select or settings.select, options.ignore or settings.ignore, dict(settings.options))
    wanted = Safety.UNSAFE if options.unsafe_fixes else Safety.SAFE
    with held_to(settings.limits):
        mended = mend(Path(target.place), target.text, rules, options.context(settings), wanted, target.data)
    text = (target.data or b"") if mended is None else mended.after.encode(mended.encoding)
    sys.stdout.buffer.write(text)
    sys.stdout.buffer.flush()
    return mended is not None and mended.after != mended.before


def accept(targets: Iterable[str], options: CheckOptions, settings: Config) -> None:
    """Write an ignore comment beside each violation that would fail the run, and print how many there are."""
    from kbitlint.fixes.files import write  # an audit changes nothing
    from kbitlint.fixes.ignores import add_ignores  # only --add-ignore needs it

    rules = registry.select(options.select or settings.select, options.ignore or settings.ignore, dict(settings.options))
    least = Severity(options.fail_on) if options.fail_on else settings.fail_on
    with held_to(settings.limits):
        parsed = [target for target in map(parse, targets) if target.kind in SOURCES]
        found = [entry for target in parsed for entry in add_ignores(target, rules, options.context(settings), least)]
    write(entry.file for entry in found)
    comments = sum(entry.comments for entry in found)
    files = sum(1 for entry in found if entry.comments)
    click.echo(f"added {plural(comments, 'comment')} to {plural(files, 'file')}")
    for entry in found:
        for line in entry.left:
            click.echo(escape(f"kbitlint: {line} cannot be silenced by a comment; use --baseline or ignore-in"), err=True)
