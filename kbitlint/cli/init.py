"""``kbitlint init``: the settings and the pre-commit entries of a project that adopts kbitlint."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from kbitlint.errors import KbitlintError
from kbitlint.files import atomic
from kbitlint.runtime import content

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_SETTINGS = """\
[tool.kbitlint]
targets = {targets}  # scripts, folders, checkpoints, adapters, Hub ids, file.py:factory, pkg.mod:factory
meta = true  # run factories without weights
fail-on = "warning"  # least severity for exit code 1: info, warning, error
# training = "accelerate.yaml"  # how training is launched: rules on DDP, FSDP and ZeRO need it
# baseline = "kbitlint-baseline.json"  # known violations; `kbitlint check --write-baseline` writes them
# ignore-in = [{{ rule = "KB101", path = "vision_tower.**", reason = "why this is right here" }}]
"""
_HOOKS = """\
  - repo: local
    hooks:
      - id: kbitlint
        name: kbitlint
        entry: kbitlint check --no-run
        language: system
        files: '\\.(py|ipynb|ya?ml|json)$'
      - id: kbitlint-models
        name: kbitlint (models)
        entry: kbitlint check
        language: system
        pass_filenames: false
        always_run: true
"""
_MAX_TARGETS = 20
PRE_COMMIT = ".pre-commit-config.yaml"


def init(folder: Path) -> Iterator[str]:
    """Write the missing settings and yield a line for each file; files that exist are only appended to.

    Raises:
        KbitlintError: A file cannot be read or written.
    """
    settings, hooks = folder / "pyproject.toml", folder / PRE_COMMIT
    before = _read(settings)
    if "[tool.kbitlint]" in before:
        yield f"kept: {settings.name} has a [tool.kbitlint]"
    else:
        targets = _targets(folder)
        end = "\r\n" if "\r\n" in before else "\n"
        added = ("\n\n" if before.strip() else "") + _SETTINGS.format(targets=json.dumps(targets))
        _write(settings, (before.rstrip("\r\n") if before.strip() else "") + added.replace("\n", end))
        yield f"written: [tool.kbitlint] in {settings.name}, {len(targets)} target{'s' * (len(targets) != 1)} found"
    before = _read(hooks)
    if "kbitlint" in before:
        yield f"kept: {hooks.name} names kbitlint"
    elif before.strip():  # appending to a list of another indentation would break it
        yield f"add to the repos of {hooks.name}:\n\n{_HOOKS}"
    else:
        _write(hooks, "repos:\n" + _HOOKS)
        yield f"written: {hooks.name} with two hooks"


def _targets(folder: Path) -> list[str]:
    """Return checkpoint and adapter folders at most two levels down."""
    found = set()
    for pattern in ("*", "*/*"):
        for path in folder.glob(pattern):
            if path.name.startswith(".") or not path.is_dir():
                continue
            if (path / "adapter_config.json").is_file() or '"model_type"' in _read(path / "config.json"):
                found.add(path.relative_to(folder).as_posix())
    return sorted(found)[:_MAX_TARGETS]


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
