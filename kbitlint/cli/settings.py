"""The settings of one run: the nearest pyproject.toml, or what ``--config`` names, with the excludes of the command line."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from kbitlint import config, registry
from kbitlint.cli.terminal import escape
from kbitlint.errors import KbitlintError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from kbitlint.config import Config


def settings_of(
    given: Iterable[str] = (), *, exclude: Iterable[str] = (), force_exclude: bool = False, **further: Any
) -> Config:
    """Return the settings of a run.

    Args:
        given: The values of ``--config``: at most one file, and lines of TOML.
        exclude: The patterns of ``--exclude``; they are added to those of the project.
        force_exclude: Whether named files are left out too.
        **further: Other fields of Config that the command line sets; None leaves the setting of the project.

    Raises:
        KbitlintError: A file is missing, or there are two of them.
    """
    lines = [text for text in given if "=" in text and not Path(text).is_file()]
    files = [Path(text) for text in given if text not in lines]
    if len(files) > 1:
        raise KbitlintError(f"--config {files[1]}: is the second file; name one, and further settings as 'key = value'")
    if files and not files[0].is_file():
        raise KbitlintError(f"--config {files[0]}: there is no such file")
    settings = config.load(files[0].absolute() if files else config.find(Path.cwd()), lines)
    fields: dict[str, Any] = {name: value for name, value in further.items() if value}
    if exclude:
        fields["extend_exclude"] = (*settings.extend_exclude, *exclude)
    return dataclasses.replace(settings, force_exclude=settings.force_exclude or force_exclude, **fields)


def show(settings: Config) -> None:
    """Print settings as TOML, after a comment that names their file."""
    registry.select(settings.select, settings.ignore, dict(settings.options))
    click.echo(f"# {escape(settings.file or 'no pyproject.toml with [tool.kbitlint]: defaults')}")
    for field in dataclasses.fields(settings):
        if field.name != "file":
            click.echo(f"{field.name.replace('_', '-')} = {config.as_toml(settings, field.name)}")
