"""One run of ``kbitlint check``: the options, the audits or fixes, the project's suppressions, the report, the exit code."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from kbitlint import api, registry, suppress
from kbitlint.cli.audits import Audited, audit_all
from kbitlint.cli.exits import EXIT_FAILED
from kbitlint.cli.inputs import must_be_no_input
from kbitlint.cli.terminal import (
    escape,
    escape_lines,
    text_layout,
    write_report,
)
from kbitlint.cli.texts import STDIN, accept, from_stdin, print_fixed
from kbitlint.files import baseline
from kbitlint.files.project import root_of
from kbitlint.lazy_dataclass import dataclass
from kbitlint.limits import held_to
from kbitlint.output import formats
from kbitlint.target import is_function
from kbitlint.violation import Severity

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kbitlint.cli.check_options import CheckOptions
    from kbitlint.config import Config
    from kbitlint.result import AuditResult, Failure

EXIT_CLEAN, EXIT_VIOLATIONS = 0, 1
#: the targets of a run that names none, in a project that lists none
HERE = (".",)


@dataclass(frozen=True, slots=True)
class CheckedRun:
    """The reports after the project's suppressions."""

    reports: tuple[AuditResult, ...]
    unused: tuple[str, ...] = ()
    """Suppressions that match nothing any more."""
    lines: tuple[str, ...] = ()
    """Lines for the error stream."""
    accepted: bool = False
    """Whether the violations were just written to the baseline."""


def check_targets(targets: tuple[str, ...], options: CheckOptions, settings: Config) -> int:
    """Audit or fix targets, write the report, and return the exit code."""
    named = bool(targets)
    listed = (*settings.targets, *(() if options.fixes else settings.rehearse))
    targets = targets or listed or HERE
    must_be_no_input(options.output_file, targets, options.other_files(settings))
    if options.unsafe_fixes and not (options.fix or options.diff):
        click.echo("kbitlint: --unsafe-fixes changes nothing by itself: give --fix too", err=True)
    if settings.force_exclude:
        targets = _without_excluded(targets, settings)
        if not targets:
            click.echo("kbitlint: the project excludes every target", err=True)
            return EXIT_CLEAN
    if options.add_ignore:
        accept(targets, options, settings)
        return EXIT_CLEAN
    if STDIN in targets:
        return _check_stdin(targets, options, settings)
    if options.run and not named:
        _name_functions(settings, options)
    rehearsed = targets if options.rehearsal is not None else tuple(one for one in targets if one in settings.rehearse)
    audited = audit_all(targets, rehearsed, options.arguments(settings), options, options.device or settings.device)
    return _finish(audited, options, settings, everything=targets == listed)


def _finish(audited: Audited, options: CheckOptions, settings: Config, *, everything: bool = False) -> int:
    """Write the report and return the exit code; of several ranks, the one that has written it returns it alone."""
    code = _reported(audited, options, settings, everything=everything)
    if audited.met is None:
        return code
    from kbitlint.integrations.exchange import leave  # only runs under torchrun need it

    sys.stdout.flush()
    lost = audited.met.lost
    leave(audited.met.ranks, speaks=audited.speaks, patience=2.0 if lost else 60.0)
    return code if audited.speaks or lost else EXIT_CLEAN


def _reported(audited: Audited, options: CheckOptions, settings: Config, *, everything: bool) -> int:
    """Apply the project's suppressions, write the report, and return the exit code."""
    result = apply_suppressions(audited.reports, settings, options, everything=everything)
    fail_on = Severity(options.fail_on) if options.fail_on else settings.fail_on
    for pack in registry.broken_packs():
        click.echo(escape(f"kbitlint: warning: {pack}"), err=True)
    if audited.speaks:
        _write(result, audited.failures, options, fail_on)
        for line in (*(() if options.quiet else result.lines), *(failure.error for failure in audited.failures)):
            click.echo(escape(f"kbitlint: {line}"), err=True)
    codes = [report.exit_code(fail_on) for report in result.reports] + [EXIT_FAILED] * len(audited.failures)
    worst = max(codes, default=EXIT_FAILED)
    if worst == EXIT_CLEAN and options.exit_non_zero_on_fix and any(r.applied and r.applied.edits for r in result.reports):
        return EXIT_VIOLATIONS
    if worst == EXIT_CLEAN and all(report.left_out for report in result.reports):
        what = "function" if options.rehearsal is None and not settings.rehearse else "function or a script to rehearse"
        click.echo(f"kbitlint: nothing was checked: every target is a {what}, and --no-run runs none", err=True)
        return EXIT_FAILED
    return EXIT_CLEAN if (options.exit_zero or result.accepted) and worst == EXIT_VIOLATIONS else worst


def _check_stdin(targets: tuple[str, ...], options: CheckOptions, settings: Config) -> int:
    """Audit the text on the standard input; with ``--fix``, print it as the fix leaves it, and no report."""
    if len(targets) > 1:
        raise click.UsageError("- is the standard input: name no other target beside it")
    target = from_stdin(options)
    if options.fixes:
        changed = print_fixed(target, options, settings)
        return EXIT_VIOLATIONS if changed and options.exit_non_zero_on_fix else EXIT_CLEAN
    report = api.check(target, **options.arguments(settings), plan=options.diff)
    return _finish(Audited((report,)), options, settings)


def _without_excluded(targets: tuple[str, ...], settings: Config) -> tuple[str, ...]:
    """Return the targets that are no files which the project excludes."""
    from kbitlint.source.folders import is_excluded  # only --force-exclude needs it

    with held_to(settings.limits):
        return tuple(target for target in targets if not (os.path.exists(target) and is_excluded(Path(target))))  # noqa: PTH110  # a target may be no valid path


def _name_functions(settings: Config, options: CheckOptions) -> None:
    """Name on the error stream each function that runs because the project lists it, before it runs."""
    for target in (*settings.targets, *(() if options.fixes else settings.rehearse)):
        if target in settings.rehearse or is_function(target):
            file = os.path.relpath(settings.file or "")
            click.echo(escape(f"kbitlint: running {target}, named by {file}"), err=True)


def apply_suppressions(
    reports: Sequence[AuditResult], settings: Config, options: CheckOptions, *, everything: bool
) -> CheckedRun:
    """Apply the project's suppressions to the reports of a run, and write its baseline if the options ask for it.

    Args:
        reports: The reports of all targets.
        settings: ``ignore-in``, ``severity`` and ``baseline`` of the project.
        options: ``baseline``, ``write_baseline`` and ``prune_baseline`` of the command line.
        everything: Whether the run audited all targets of the project.

    Raises:
        KbitlintError: The baseline cannot be read or written, or a pattern names no rule.
    """
    path = options.baseline or (Path(settings.baseline) if settings.baseline else None)
    writes, prunes = options.write_baseline, options.prune_baseline
    if (writes or prunes) and path is None:
        raise click.UsageError("--write-baseline and --prune-baseline need --baseline FILE")
    root = root_of(Path(settings.file).parent if settings.file else Path.cwd())
    known = baseline.read(path) if path is not None and (path.exists() or not writes) else {}
    known = suppress.followed(known, reports, root)
    chosen = suppress.Suppressions(settings.ignore_in, {} if writes else known, settings.severity, root)
    made, unused = suppress.apply(reports, chosen, everything=everything)
    if path is not None and (writes or prunes):
        counts = suppress.written(known, made, root, prune=prunes and not writes)
        baseline.write(path, counts)
        pruned = tuple(line for line in unused if not line.startswith("baseline "))
        return CheckedRun(made, pruned, (*pruned, f"written: {path}"), accepted=writes)
    gone = any(line.startswith("baseline ") for line in unused)
    return CheckedRun(made, unused, (*unused, *["`kbitlint check --prune-baseline` takes out what is gone"] * gone))


def _write(result: CheckedRun, failures: Sequence[Failure], options: CheckOptions, fail_on: Severity) -> None:
    colour, columns = text_layout(options.output_file)
    if options.statistics:
        from kbitlint.output import statistics  # only this option needs it

        write_report(statistics.render(options.format_, result.reports), options.output_file)
        return
    text = formats.render(
        options.format_,
        result.reports,
        failures,
        result.unused,
        fail_on=fail_on,
        color=colour,
        width=columns,
        verbose=options.verbose,
        quiet=options.quiet,
        timed=options.output_file is None and sys.stdout.isatty(),
    )
    if options.verbose and options.format_ == "text":
        text += "".join(f"\n\n{escape_lines(crash.traceback)}" for report in result.reports for crash in report.crashes)
    if text or options.output_file:
        write_report(text, options.output_file)
