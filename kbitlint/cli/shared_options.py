"""Options that check and memory share: how a target is opened, and where the report goes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from kbitlint.cli.options import AMP
from kbitlint.context import TrainingContext
from kbitlint.lazy_dataclass import dataclass

if TYPE_CHECKING:
    from kbitlint.config import Config


@dataclass(frozen=True, slots=True)
class SharedOptions:
    """The arguments of ``OPENING_OPTIONS``, as click parses them."""

    quantize: str | None
    meta: bool | None
    """None for the setting of the project."""
    amp: str | None
    training: Path | None
    trust_remote_code: bool
    output_file: Path | None
    verbose: bool

    def context(self, settings: Config) -> TrainingContext:
        """Return the training context of a run: the launcher's file, overridden by the command line.

        Raises:
            KbitlintError: The file cannot be read or belongs to no launcher.
        """
        file = self.training or (Path(settings.training) if settings.training else None)
        given = TrainingContext(autocast_dtype=None if self.amp is None else AMP[self.amp])
        return given if file is None else TrainingContext.from_launcher_file(file).updated(given)

    def arguments(self, settings: Config) -> dict[str, Any]:
        """Return the arguments of ``kbitlint.check`` and ``kbitlint.memory`` that say how a target is opened."""
        return {
            "quantize": self.quantize or settings.quantize,
            "meta": settings.meta if self.meta is None else self.meta,
            "trust_remote_code": self.trust_remote_code,
            "limits": settings.limits,
            "context": self.context(settings),
        }

    def other_files(self, settings: Config) -> tuple[str | Path | None, ...]:
        """Return the files that a run reads or writes beside its targets and its report; None for those not given."""
        return (settings.file, self.training or settings.training, settings.baseline)
