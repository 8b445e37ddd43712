"""``kbitlint init``: the settings and the pre-commit entries of a project that adopts kbitlint.

It leaves a repository that can commit: only targets that could be audited are listed, and a baseline accepts what is there.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from kbitlint import api, suppress
from kbitlint.cli import hooks
from kbitlint.errors import KbitlintError
from kbitlint.files import atomic
from kbitlint.files import baseline as baseline_file
from kbitlint.files.project import root_of
from kbitlint.lazy_dataclass import dataclass
from kbitlint.output.wording import plural
from kbitlint.result import Failure
from kbitlint.runtime import content
from kbitlint.source import documents
from kbitlint.source.factories import factories
from kbitlint.source.folders import walk

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from kbitlint.report import Report

_SETTINGS = """\
[tool.kbitlint]
targets = {targets}  # scripts, folders, checkpoints, adapters, Hub ids, file.py:function, pkg.mod:function
meta = true  # run functions without weights
fail-on = "warning"  # least severity for exit code 1: info, warning, error
{baseline}baseline = "{file}"  # accepted violations; `kbitlint check --write-baseline` writes them
# training = "accelerate.yaml"  # how training is launched: rules on DDP, FSDP and ZeRO need it
# ignore-in = [{{ rule = "KB101", path = "vision_tower.**", reason = "why this is right here" }}]
"""
_MAX_TARGETS = 20
PRE_COMMIT = ".pre-commit-config.yaml"
BASELINE = "kbitlint-baseline.json"


@dataclass(frozen=True, slots=True)
class Found:
    """The targets of a project, each with its report, and those that cannot be audited."""

    reports: tuple[Report, ...]
    failures: tuple[Failure, ...]
    functions: tuple[str, ...]
    """The functions that build models; they are among the reports only if they were run."""

    @property
    def targets(self) -> list[str]:
        """Return the targets that can be audited."""
        return [report.target for report in self.reports]

    @property
    def models(self) -> list[str]:
        """Return those among them that are no folder of scripts."""
        return [target for target in self.targets if target != "."]


def find(folder: Path, *, run: bool) -> Found:
    """Audit what a project holds: its scripts and configurations, its checkpoints and adapters, its functions.

    Args:
        folder: The working folder.
        run: Whether to run the functions that build models, on the meta device.
    """
    functions = tuple(_functions(folder))
    reports, failures = [], []
    for target in (".", *_checkpoints(folder), *(functions if run else ())):
        try:
            report = api.check(target, meta=True)
        except KbitlintError as error:
            failures.append(Failure(target, str(error)))
            continue
        if report.crashes:
            failures.append(Failure(target, f"{target}: {report.crashes[0]}"))
        else:
            reports.append(report)
    return Found(tuple(reports), tuple(failures), functions)


def write(folder: Path, found: Found, *, baseline: bool) -> Iterator[str]:
    """Write the missing settings, hooks and baseline, and yield a line for each file; files that exist are only appended to.

    Args:
        folder: The working folder.
        found: The targets.
        baseline: Whether to accept the violations that are there.

    Raises:
        KbitlintError: A file cannot be read or written.
    """
    settings = folder / "pyproject.toml"
    before = _read(settings)
    accepted = sum(len(report.violations) for report in found.reports) if baseline else 0
    if "[tool.kbitlint]" in before:
        accepted = 0
        yield f"kept: {settings.name} has a [tool.kbitlint]"
    else:
        end = "\r\n" if "\r\n" in before else "\n"
        text = _SETTINGS.format(targets=json.dumps(found.targets), baseline="" if accepted else "# ", file=BASELINE)
        added = ("\n\n" if before.strip() else "") + text
        _write(settings, (before.rstrip("\r\n") if before.strip() else "") + added.replace("\n", end))
        yield f"written: [tool.kbitlint] in {settings.name} with {plural(len(found.targets), 'target')}"
    yield from _write_hooks(folder / PRE_COMMIT, hooks.local(models=bool(found.models)), len(found.models))
    if accepted:
        baseline_file.write(folder / BASELINE, suppress.counts_of(found.reports, root_of(folder)))
        yield f"written: {BASELINE} with {plural(accepted, 'violation')}: only new ones fail a commit"
        yield "once you have repaired one, `kbitlint check --prune-baseline` takes it out"


def _write_hooks(path: Path, entry: str, models: int) -> Iterator[str]:
    before = _read(path)
    if "kbitlint" in before:
        yield f"kept: {path.name} names kbitlint"
    elif before.strip():  # appending to a list of another indentation would break it
        yield f"add to the repos of {path.name}:\n\n{entry}"
    else:
        _write(path, "repos:\n" + entry)
        yield f"written: {path.name} with {'two hooks' if models else 'one hook'}; `pre-commit install` sets them up"


def _checkpoints(folder: Path) -> list[str]:
    """Return checkpoint and adapter folders at most two levels down."""
    found = set()
    for pattern in ("*", "*/*"):
        for path in folder.glob(pattern):
            if path.name.startswith(".") or not path.is_dir():
                continue
            if (path / "adapter_config.json").is_file() or '"model_type"' in _read(path / "config.json"):
                found.add(path.relative_to(folder).as_posix())
    return sorted(found)[:_MAX_TARGETS]


def _functions(folder: Path) -> Iterable[str]:
    """Yield the functions that build models, as targets."""
    left = _MAX_TARGETS
    for path in walk(folder):
        if path.suffix not in documents.PYTHON or not left:
            continue
        try:
            data = content.read(path, documents.MAX_BYTES)
        except OSError:
            continue
        if documents.worth_parsing(path, data):
            names = factories(data.decode("utf-8-sig", "replace"))[:left]
            left -= len(names)
            yield from (f"{path.relative_to(folder).as_posix()}:{name}" for name in names)


def _read(path: Path) -> str:
    try:
        return content.read_text(path) if path.is_file() else ""
    except (OSError, UnicodeDecodeError) as error:
        raise KbitlintError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from error


def _write(path: Path, text: str) -> None:
    try:
        atomic.replace(path, text.encode())
    except OSError as error:
        raise KbitlintError(f"{path}: cannot be written: {error.strerror or error}") from error
