"""What the project and the command line say about one run: its training context, and how its reports count."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from kbitlint.usage import size_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kbitlint.config import Config
    from kbitlint.context import TrainingContext
    from kbitlint.result import AuditResult

SUPPRESSING_OPTIONS = (
    click.option(
        "--baseline", type=click.Path(dir_okay=False, path_type=Path), help="Known violations that are not counted, by place."
    ),
    click.option("--write-baseline", is_flag=True, help="Accept all violations: write them to --baseline and leave with 0."),
    click.option("--prune-baseline", is_flag=True, help="Take out of --baseline what is not there any more."),
)
RANK_OPTION = click.option(
    "--rank-timeout",
    type=click.FloatRange(min=0, min_open=True),
    default=300.0,
    metavar="SECONDS",
    help="Under torchrun: how long a rank waits for the others (default: 300).",
)


def _size(_: click.Context, __: click.Parameter, value: str | None) -> int | None:
    try:
        return None if value is None else size_of(value)
    except ValueError as error:
        raise click.BadParameter(str(error)) from error


JOBS_OPTIONS = (
    click.option("--jobs", type=click.IntRange(min=1), metavar="N", help="Audit N targets at once, each in its own process."),
    click.option(
        "--target-timeout",
        type=click.FloatRange(min=0, min_open=True),
        metavar="SECONDS",
        help="Give one target no longer than this; it then runs in its own process.",
    ),
    click.option(
        "--target-memory",
        callback=_size,
        metavar="SIZE",
        help="Give one target no more memory than this (8GB); it then runs in its own process.",
    ),
)

RUN_OPTION = click.option(
    "--no-run",
    "run",
    flag_value=False,
    default=True,
    type=bool,
    help="Run no function: those among the targets are skipped, not audited.",
)
TRAINING_OPTION = click.option(
    "--training",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="How training is launched: the file of accelerate config, or a DeepSpeed JSON file.",
)


def say_what_is_run(settings: Config) -> None:
    """Name on the error stream each function that is run because the project lists it, before it is run."""
    from kbitlint.streams import shown
    from kbitlint.target import is_function

    for target in settings.targets:
        if is_function(target):
            file = os.path.relpath(settings.file or "")
            click.echo(shown(f"kbitlint: running {target}, named by {file}"), err=True)


def others_read(settings: Config, options: dict[str, Any]) -> tuple[str | Path | None, ...]:
    """Return what a run reads or writes beside its targets and its report; None for what is not given."""
    return (
        settings.file,
        options["training"] or settings.training,
        options.get("baseline") or settings.baseline,
        options.get("output"),
    )


def context_of(settings: Config, options: dict[str, Any], autocast_dtype: str | None) -> TrainingContext:
    """The training context of a run: the launcher's file, and over it what the command line says.

    Raises:
        KbitlintError: The file cannot be read or is none of a launcher.
    """
    from kbitlint.context import TrainingContext

    file = options["training"] or (Path(settings.training) if settings.training else None)
    said = TrainingContext(autocast_dtype=autocast_dtype)
    return said if file is None else TrainingContext.from_launcher_file(file).updated(said)


@dataclass(frozen=True, slots=True)
class Settled:
    """The reports as they count."""

    reports: tuple[AuditResult, ...]
    unused: tuple[str, ...] = ()
    """Suppressions that match nothing any more."""
    lines: tuple[str, ...] = ()
    """What is said on the error stream."""
    accepted: bool = False
    """Whether the violations were just written to the baseline."""


def settled(reports: Sequence[AuditResult], settings: Config, options: dict[str, Any], *, everything: bool) -> Settled:
    """Apply the project's decisions to the reports of a run.

    Args:
        reports: What the run found.
        settings: ``ignore-in``, ``severity`` and ``baseline`` of the project.
        options: ``baseline``, ``write_baseline`` and ``prune_baseline`` of the command line.
        everything: Whether the run audited all targets of the project.

    Raises:
        KbitlintError: The baseline cannot be read or written, or a pattern names no rule.
    """
    from kbitlint import suppress

    path = options["baseline"] or (Path(settings.baseline) if settings.baseline else None)
    writes, prunes = options["write_baseline"], options["prune_baseline"]
    if (writes or prunes) and path is None:
        raise click.UsageError("--write-baseline and --prune-baseline need --baseline FILE")
    known = suppress.read_baseline(path) if path is not None and (path.exists() or not writes) else {}
    chosen = suppress.Suppressions(settings.ignore_in, {} if writes else known, settings.severity)
    made, unused = suppress.apply(reports, chosen, everything=everything)
    if path is not None and (writes or prunes):
        counts = suppress.written(known, made, prune=prunes and not writes)
        suppress.write_baseline(path, counts)
        pruned = tuple(line for line in unused if not line.startswith("baseline "))
        return Settled(made, pruned, (*pruned, f"written: {path}"), accepted=writes)
    return Settled(made, unused, unused)
