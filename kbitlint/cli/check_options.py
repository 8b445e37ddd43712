"""The options of ``kbitlint check``, as click parses them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from kbitlint.cli.shared_options import SharedOptions
from kbitlint.files.project import project_of
from kbitlint.lazy_dataclass import dataclass

if TYPE_CHECKING:
    from kbitlint.config import Config
    from kbitlint.rehearsal.run import Rehearsal


@dataclass(frozen=True, slots=True)
class CheckOptions(SharedOptions):
    """The arguments of ``CHECK_OPTIONS``, as click parses them, without the targets."""

    fix: bool
    unsafe_fixes: bool
    diff: bool
    norms: str
    output: str | None
    probe_batch: int
    probe_seq: int
    device: str | None
    run: bool
    trace: bool
    select: tuple[str, ...]
    ignore: tuple[str, ...]
    format_: str
    baseline: Path | None
    write_baseline: bool
    prune_baseline: bool
    rank_timeout: float
    jobs: int | None
    target_timeout: float | None
    target_memory: int | None
    """Bytes."""
    fail_on: str | None
    exit_zero: bool
    exit_non_zero_on_fix: bool
    add_ignore: bool
    statistics: bool
    quiet: bool
    stdin_filename: str | None
    no_cache: bool = False
    rehearsal: Rehearsal | None = None
    """How all targets are rehearsed; None where only those are that the project lists so."""

    @property
    def fixes(self) -> bool:
        """Whether targets are changed; ``--diff`` only shows how, and ``--unsafe-fixes`` alone changes nothing."""
        return self.fix and not self.diff

    @property
    def isolates(self) -> bool:
        """Whether each target is audited in a process of its own."""
        return any(value is not None for value in (self.jobs, self.target_timeout, self.target_memory))

    def arguments(self, settings: Config) -> dict[str, Any]:
        """Return the arguments of ``kbitlint.check`` and ``kbitlint.fix``."""
        return {
            **SharedOptions.arguments(self, settings),
            "select": self.select or settings.select,
            "ignore": self.ignore or settings.ignore,
            "rule_options": dict(settings.options),
            "run": self.run,
            "trace": self.trace,
            "norms": self.norms,
            "output": self.output,
            "cache": self.cache(settings),
            "probe_batch": self.probe_batch,
            "probe_seq": self.probe_seq,
            **dict.fromkeys(("outline", "memory"), self.format_ == "html"),
        }

    def cache(self, settings: Config) -> Path | None:
        """Return the folder of kept results: the project's, or the one that its settings name; None outside a project."""
        if self.no_cache:
            return None
        if settings.cache_dir is not None:
            return Path(settings.cache_dir)
        root = project_of(Path.cwd())
        return None if root is None else root / ".kbitlint_cache"

    def other_files(self, settings: Config) -> tuple[str | Path | None, ...]:
        """Return the files that a run reads or writes beside its targets and its report; None for those not given."""
        return (*SharedOptions.other_files(self, settings), self.baseline, self.output)
