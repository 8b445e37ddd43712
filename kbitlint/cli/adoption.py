"""One run of ``kbitlint init``: the audit of what is there, its report, the files that it writes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from kbitlint.cli import init
from kbitlint.cli.terminal import color, escape, line_of, progress, reserve_stdout, width
from kbitlint.errors import KbitlintError
from kbitlint.output import text

if TYPE_CHECKING:
    from pathlib import Path


def adopt(folder: Path, *, run: bool, baseline: bool) -> None:
    """Audit a project, print what was found, and write its settings, hooks and baseline."""
    with reserve_stdout(), progress(f"auditing {folder}"):
        found = init.find(folder, run=run)
    shown = text.render_all(found.reports, color=color(), width=width())
    click.echo(f"{shown}\n")
    for failure in found.failures:
        click.echo(f"left out: {line_of(KbitlintError(failure.error))}")
    for line in init.write(folder, found, baseline=baseline):
        click.echo(escape(line) if "\n" not in line else line)
    if found.functions and not run:
        click.echo("these functions build models; `kbitlint init --run` runs and lists them:")
        for target in found.functions:
            click.echo(escape(f"  kbitlint check {target} --meta"))
