"""``[tool.kbitlint]`` of the nearest pyproject.toml, as a frozen Config."""

from __future__ import annotations

import dataclasses
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kbitlint.errors import ConfigError, did_you_mean
from kbitlint.target import QUANTIZATIONS
from kbitlint.violation import Severity

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # pragma: no cover


@dataclass(frozen=True, slots=True)
class Config:
    """What a project says about its audits; the command line wins over it."""

    targets: tuple[str, ...] = ()
    """What ``kbitlint check`` audits where it is given no target."""
    select: tuple[str, ...] = ()
    """Codes, prefixes or slugs of the rules that run; all where it is empty."""
    ignore: tuple[str, ...] = ()
    """Codes, prefixes or slugs of rules that do not run."""
    fail_on: Severity = Severity.WARNING
    """The least severity that makes the exit code 1."""
    quantize: str | None = None
    """How unquantized checkpoints will be loaded."""
    device: str | None = None
    """Where ``--fix`` works."""
    meta: bool = False
    """Whether factories run without weights."""
    file: str | None = None
    """The file that was read."""


def find(start: Path) -> Path | None:
    """The nearest pyproject.toml at or above a folder that has a ``[tool.kbitlint]``."""
    for folder in (start, *start.parents):
        path = folder / "pyproject.toml"
        if path.is_file() and b"tool.kbitlint" in path.read_bytes():
            return path
    return None


def load(path: Path | None) -> Config:
    """The configuration of a file, or the defaults. Every error names file, key and what is wrong."""
    if path is None:
        return Config()
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
        raise ConfigError(path, "tool.kbitlint", f"the file is not valid TOML: {error}") from error
    table = content.get("tool", {}).get("kbitlint", {})
    if not isinstance(table, dict):
        raise ConfigError(path, "tool.kbitlint", "must be a table")
    known = {field.name.replace("_", "-"): field for field in dataclasses.fields(Config) if field.name != "file"}
    values: dict[str, Any] = {}
    for key, value in table.items():
        if key not in known:
            raise ConfigError(path, f"tool.kbitlint.{key}", f"unknown key{did_you_mean(key, known)}")
        values[known[key].name] = _read(path, key, value)
    values["targets"] = tuple(_beside(path, target) for target in values.get("targets", ()))
    return Config(**values, file=str(path))


def _beside(path: Path, target: str) -> str:
    """A target that names something beside the configuration, as seen from the working folder."""
    place, colon, attribute = target.partition(":")
    there = path.parent / place
    if path.parent == Path.cwd() or not place or not there.exists():
        return target
    return f"{os.path.relpath(there)}{colon}{attribute}"


def _read(path: Path, key: str, value: Any) -> Any:
    name = f"tool.kbitlint.{key}"
    if key in ("targets", "select", "ignore"):
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise ConfigError(path, name, "must be a list of strings")
        return tuple(value)
    if key == "meta":
        if not isinstance(value, bool):
            raise ConfigError(path, name, "must be true or false")
        return value
    if not isinstance(value, str):
        raise ConfigError(path, name, "must be a string")
    if key == "fail-on":
        names = [severity.value for severity in Severity]
        if value not in names:
            raise ConfigError(path, name, f"{value!r} is none of {', '.join(names)}{did_you_mean(value, names)}")
        return Severity(value)
    if key == "quantize" and value not in QUANTIZATIONS:
        raise ConfigError(path, name, f"{value!r} is none of {', '.join(QUANTIZATIONS)}{did_you_mean(value, QUANTIZATIONS)}")
    return value
