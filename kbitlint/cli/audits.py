"""The audits, fixes or rehearsals of all targets of a run, in this process or each in one of its own."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import click

from kbitlint import api
from kbitlint.cli.terminal import line_of, progress, reserve_stdout, show_traceback
from kbitlint.errors import KbitlintError
from kbitlint.extras import require_model_extra
from kbitlint.lazy_dataclass import dataclass
from kbitlint.report import Report
from kbitlint.result import Failure

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kbitlint.cli.check_options import CheckOptions


@dataclass(frozen=True, slots=True)
class Met:
    """The ranks of a launcher that audited a target with this process."""

    ranks: Any
    lost: bool
    """Whether one of them is lost."""


@dataclass(frozen=True, slots=True)
class Audited:
    """The results of all targets of a run."""

    reports: tuple[Report, ...]
    failures: tuple[Failure, ...] = ()
    speaks: bool = True
    """Whether this process shows them: under torchrun one rank does."""
    met: Met | None = None
    """The ranks of a launcher that audited with this process."""


def audit_all(
    targets: Sequence[str], rehearsed: Sequence[str], arguments: dict[str, Any], options: CheckOptions, device: str | None
) -> Audited:
    """Audit, fix or rehearse all targets. If there are several, one that fails does not end the run."""
    if options.output is not None and len(targets) > 1:
        raise click.UsageError("--output is one file: name one target")
    if options.isolates:
        if options.fixes:
            raise click.UsageError("--jobs, --target-timeout and --target-memory audit; they cannot be used with --fix")
        isolated = _audit_isolated([target for target in targets if target not in rehearsed], arguments, options)
        reports, failures, targets = list(isolated.reports), list(isolated.failures), rehearsed
    else:
        reports, failures = list[Report](), list[Failure]()
    speaks, met = True, None
    for target in targets:
        try:
            if target in rehearsed:
                with reserve_stdout(), progress(f"rehearsing {target}"):
                    reports += _rehearse(target, arguments, options)
                continue
            with reserve_stdout(), progress(f"{'fixing' if options.fixes else 'auditing'} {target}"):
                report, speaks, ranks = _audit_one(target, arguments, options, device)
            met = ranks or met
            reports.append(report)
        except KbitlintError as error:
            if len(targets) == 1 and not options.isolates:
                raise
            failures.append(Failure(target, line_of(error)))
            if options.verbose:
                show_traceback()
    return Audited(tuple(reports), tuple(failures), speaks, met)


def _audit_one(
    target: str, arguments: dict[str, Any], options: CheckOptions, device: str | None
) -> tuple[Report, bool, Met | None]:
    """Return the report of a target, whether this process shows it, and the ranks that it met."""
    if options.fixes:
        return api.fix(target, unsafe=options.unsafe_fixes, device=device, **arguments), True, None
    if "WORLD_SIZE" in os.environ:
        from kbitlint.integrations import ranks  # only runs under torchrun need it

        joint = ranks.check(target, timeout=options.rank_timeout, **arguments, plan=options.diff)
        return joint.report, joint.speaks, None if joint.ranks is None else Met(joint.ranks, joint.lost)
    return api.check(target, **arguments, plan=options.diff), True, None


def _rehearse(target: str, arguments: dict[str, Any], options: CheckOptions) -> tuple[Report, ...]:
    """Return the reports of a rehearsal. Its process has its own limits."""
    import shlex  # only rehearsals need these

    from kbitlint.rehearsal.run import Rehearsal, run  # see above

    how = options.rehearsal or Rehearsal()
    try:
        words = shlex.split(target)
    except ValueError as error:
        raise KbitlintError(f"{target}: is no command line: {error}") from error
    if options.fixes:
        from kbitlint.rehearsal.repair import repair  # only a fix needs it

        return repair(words, how, {**arguments, "memory": False}, unsafe=options.unsafe_fixes)
    return run(words, how, {**arguments, "plan": False, "memory": False})


def _audit_isolated(targets: Sequence[str], arguments: dict[str, Any], options: CheckOptions) -> Audited:
    """Audit each target in a process of its own."""
    from kbitlint.jobs.server import audit_many  # only --jobs and its limits need it

    require_model_extra("--jobs")
    with progress(f"auditing {len(targets)} targets"):
        results = audit_many(
            targets,
            {**arguments, "plan": options.diff},
            jobs=options.jobs or 1,
            timeout=options.target_timeout,
            memory=options.target_memory,
        )
    reports = tuple(result for result in results if isinstance(result, Report))
    return Audited(reports, tuple(result for result in results if isinstance(result, Failure)))
