"""The hooks for pre-commit, in the one form from which the published file and ``kbitlint init`` are written."""

from __future__ import annotations

from kbitlint.lazy_dataclass import dataclass
from kbitlint.target import SUFFIXES

PUBLISHED = ".pre-commit-hooks.yaml"
#: what ``kbitlint check`` reads among the files of a commit
FILES = rf"\.({'|'.join(suffix.removeprefix('.') for suffix in SUFFIXES)})$"


@dataclass(frozen=True, slots=True)
class Hook:
    """One hook: its id, and the command that it runs."""

    id: str
    name: str
    description: str
    entry: str
    models: bool = False
    """Whether it audits the targets of the project in the project's own environment, instead of the files of a commit."""

    def lines(self, *, local: bool) -> list[str]:
        """Return the hook as lines of YAML; a local one runs the kbitlint of the project's environment."""
        system = local or self.models
        lines = [f"- id: {self.id}", f"  name: {self.name}"]
        lines += [] if local else [f"  description: {self.description}"]
        lines += [f"  entry: {self.entry}", f"  language: {'system' if system else 'python'}"]
        if self.models:
            return [*lines, "  pass_filenames: false", "  always_run: true"]
        # pre-commit would part the files among processes: several reports, in which a file that others import comes twice
        return [*lines, f"  files: '{FILES}'", "  require_serial: true"]


SCRIPTS = Hook(
    "kbitlint",
    "kbitlint",
    "Audit training scripts, notebooks, training configurations, checkpoints and adapters (no torch, runs no function).",
    "kbitlint check --no-run",
)
FIX = Hook(
    "kbitlint-fix",
    "kbitlint (fix)",
    "The same, and repair what can be repaired safely.",
    "kbitlint check --no-run --fix",
)
MODELS = Hook(
    "kbitlint-models",
    "kbitlint (models)",
    "Audit the targets of [tool.kbitlint] in your own environment; the functions among them are run.",
    "kbitlint check",
    models=True,
)


def published() -> str:
    """Return the text of the file in which pre-commit looks for the hooks of a repository."""
    return "".join(f"{line}\n" for hook in (SCRIPTS, FIX, MODELS) for line in hook.lines(local=False))


def local(*, models: bool) -> str:
    """Return the entry for ``repos`` of a project's ``.pre-commit-config.yaml``."""
    hooks = (SCRIPTS, MODELS) if models else (SCRIPTS,)
    lines = ["- repo: local", "  hooks:", *(f"    {line}" for hook in hooks for line in hook.lines(local=True))]
    return "".join(f"  {line}\n" for line in lines)
