"""One run of ``kbitlint rehearse``: a check of one target, which is rehearsed."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import click

from kbitlint.cli.check import check_targets
from kbitlint.cli.check_options import CheckOptions
from kbitlint.cli.terminal import escape_lines
from kbitlint.rehearsal.run import Rehearsal

if TYPE_CHECKING:
    from kbitlint.config import Config

#: what check's other options are in a rehearsal
_FIXED: dict[str, Any] = {
    "diff": False,
    "norms": "transparent",
    "output": None,
    "probe_batch": 2,
    "probe_seq": 16,
    "device": None,
    "rank_timeout": 300.0,
    "jobs": None,
    "target_timeout": None,
    "target_memory": None,
    "quantize": None,
    "meta": None,
    "add_ignore": False,
    "stdin_filename": None,
}


def rehearse_command(command: str, options: dict[str, Any], settings: Config) -> int:
    """Rehearse a command line, write the report, and return the exit code."""
    own = {field.name: options.pop(field.name) for field in dataclasses.fields(Rehearsal) if field.name in options}
    how = Rehearsal(**own, show=_show if options["verbose"] else None)
    return check_targets((command,), CheckOptions(**{**_FIXED, **options}, rehearsal=how), settings)


def _show(output: str) -> None:
    """Show what the script printed on the error stream."""
    click.echo(escape_lines(output), err=True)
