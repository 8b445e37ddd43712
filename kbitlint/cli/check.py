"""What the project and the command line say about one run: its training context, and how its reports count."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from kbitlint.cli.exits import EXIT_FAILED
from kbitlint.cli.options import AMP, context_of
from kbitlint.cli.terminal import (
    escape,
    escape_lines,
    line_of,
    progress,
    reserve_stdout,
    show_traceback,
    text_layout,
    write_report,
)
from kbitlint.errors import KbitlintError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kbitlint.config import Config
    from kbitlint.report import Report
    from kbitlint.result import AuditResult, Failure
    from kbitlint.violation import Severity


EXIT_CLEAN, EXIT_VIOLATIONS = 0, 1


def say_what_is_run(settings: Config) -> None:
    """Name on the error stream each function that is run because the project lists it, before it is run."""
    from kbitlint.cli.terminal import escape
    from kbitlint.target import is_function

    for target in settings.targets:
        if is_function(target):
            file = os.path.relpath(settings.file or "")
            click.echo(escape(f"kbitlint: running {target}, named by {file}"), err=True)


def others_read(settings: Config, options: dict[str, Any]) -> tuple[str | Path | None, ...]:
    """Return what a run reads or writes beside its targets and its report; None for what is not given."""
    return (
        settings.file,
        options["training"] or settings.training,
        options.get("baseline") or settings.baseline,
        options.get("output"),
    )


@dataclass(frozen=True, slots=True)
class CheckedRun:
    """The reports as they count."""

    reports: tuple[AuditResult, ...]
    unused: tuple[str, ...] = ()
    """Suppressions that match nothing any more."""
    lines: tuple[str, ...] = ()
    """What is said on the error stream."""
    accepted: bool = False
    """Whether the violations were just written to the baseline."""


def apply_suppressions(
    reports: Sequence[AuditResult], settings: Config, options: dict[str, Any], *, everything: bool
) -> CheckedRun:
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
        return CheckedRun(made, pruned, (*pruned, f"written: {path}"), accepted=writes)
    return CheckedRun(made, unused, unused)


def check_targets(targets: tuple[str, ...], options: dict[str, Any], settings: Config) -> int:
    """Audit or fix targets, write the report, and return the exit code."""
    import gc

    from kbitlint.cli.inputs import must_be_no_input
    from kbitlint.violation import Severity

    gc.set_threshold(10_000)  # a collection walks all that torch and transformers import: an eighth of a folder's audit
    named = bool(targets)
    targets = targets or settings.targets
    if not targets:
        raise click.UsageError("name a target, or list some under [tool.kbitlint] targets in pyproject.toml")
    must_be_no_input(options["output_file"], targets, others_read(settings, options))
    opened = {
        "select": options["select"] or settings.select,
        "ignore": options["ignore"] or settings.ignore,
        "rule_options": dict(settings.options),
        "quantize": options["quantize"] or settings.quantize,
        "meta": settings.meta if options["meta"] is None else options["meta"],
        "run": options["run"],
        "trust_remote_code": options["trust_remote_code"],
        "trace": options["trace"],
        "limits": settings.limits,
        "context": context_of(settings, options, AMP.get(options["amp"])),
        **{name: options[name] for name in ("norms", "output", "probe_batch", "probe_seq")},
        **dict.fromkeys(("outline", "memory"), options["format_"] == "html"),
    }
    if options["run"] and not named:
        say_what_is_run(settings)
    reports, failures, speaks = _audited(targets, opened, options, options["device"] or settings.device)
    result = apply_suppressions(reports, settings, options, everything=targets == settings.targets)
    fail_on = Severity(options["fail_on"]) if options["fail_on"] else settings.fail_on
    if speaks:
        _write(result, failures, options, fail_on)
    for line in [*result.lines, *(failure.error for failure in failures)] if speaks else ():
        click.echo(escape(f"kbitlint: {line}"), err=True)
    codes = [report.exit_code(fail_on) for report in result.reports] + [EXIT_FAILED] * len(failures)
    worst = max(codes, default=EXIT_FAILED)
    return EXIT_CLEAN if (options["exit_zero"] or result.accepted) and worst == EXIT_VIOLATIONS else worst


def _audited(
    targets: Sequence[str], opened: dict[str, Any], options: dict[str, Any], device: str | None
) -> tuple[list[Report], list[Failure], bool]:
    """(reports, failures, whether this process is the one that shows them)."""
    from kbitlint import api
    from kbitlint.report import Report
    from kbitlint.result import Failure

    if options["output"] is not None and len(targets) > 1:
        raise click.UsageError("--output is one file: name one target")
    unsafe = options["unsafe_fixes"]
    fixing = (options["fix"] or unsafe) and not options["diff"]
    if any(options[name] is not None for name in ("jobs", "target_timeout", "target_memory")):
        if fixing:
            raise click.UsageError("--jobs, --target-timeout and --target-memory audit; they cannot be used with --fix")
        many = _isolated(targets, opened, options)
        return [one for one in many if isinstance(one, Report)], [one for one in many if isinstance(one, Failure)], True
    reports: list[Report] = []
    failures: list[Failure] = []
    speaks = True
    for target in targets:
        try:
            with reserve_stdout(), progress(f"{'fixing' if fixing else 'auditing'} {target}"):
                if fixing:
                    reports.append(api.fix(target, unsafe=unsafe, device=device, **opened))
                elif "WORLD_SIZE" in os.environ:
                    from kbitlint.integrations import ranks

                    joint = ranks.check(target, timeout=options["rank_timeout"], **opened, plan=options["diff"])
                    reports.append(joint.report)
                    speaks = joint.speaks
                else:
                    reports.append(api.check(target, **opened, plan=options["diff"]))
        except KbitlintError as error:
            if len(targets) == 1:
                raise
            failures.append(Failure(target, line_of(error)))
            if options["verbose"]:
                show_traceback()
    return reports, failures, speaks


def _isolated(targets: Sequence[str], opened: dict[str, Any], options: dict[str, Any]) -> list[Report | Failure]:
    from kbitlint.extras import require_model_extra
    from kbitlint.jobs.server import audit_many

    require_model_extra("--jobs")
    arguments = {**opened, "plan": options["diff"]}
    with progress(f"auditing {len(targets)} targets"):
        return audit_many(
            targets, arguments, jobs=options["jobs"] or 1, timeout=options["target_timeout"], memory=options["target_memory"]
        )


def _write(result: CheckedRun, failures: Sequence[Failure], options: dict[str, Any], fail_on: Severity) -> None:
    from kbitlint.output import formats

    colour, columns = text_layout(options["output_file"])
    text = formats.render(
        options["format_"],
        result.reports,
        failures,
        result.unused,
        fail_on=fail_on,
        color=colour,
        width=columns,
        verbose=options["verbose"],
        timed=options["output_file"] is None and sys.stdout.isatty(),
    )
    if options["verbose"] and options["format_"] == "text":
        text += "".join(f"\n\n{escape_lines(crash.traceback)}" for report in result.reports for crash in report.crashes)
    write_report(text, options["output_file"])
