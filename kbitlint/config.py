"""Configuration: ``[tool.kbitlint]`` of the nearest pyproject.toml as a frozen Config."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kbitlint.errors import ConfigError, did_you_mean
from kbitlint.lazy_dataclass import dataclass
from kbitlint.limits import EXCLUDED, Limits
from kbitlint.runtime.content import read, read_text
from kbitlint.sizes import size_of
from kbitlint.suppress import IgnoreIn
from kbitlint.upstream.quantization import QUANTIZATIONS
from kbitlint.violation import Severity

if TYPE_CHECKING:
    from collections.abc import Iterable

_LIMITS = Limits()


#: tables of pyproject.toml that may be a slip for kbitlint's, and how close the name must be
_NEARLY = re.compile(rb"^\[tool\.([kK][A-Za-z_-]{5,10})\]", re.MULTILINE)
_CLOSE = 0.8


@dataclass(frozen=True, slots=True)
class Config:
    """The settings of a project. Options of the command line override them."""

    targets: tuple[str, ...] = ()
    """The targets of ``kbitlint check`` without arguments."""
    rehearse: tuple[str, ...] = ()
    """Command lines of scripts that ``kbitlint check`` rehearses: ``train.py --config c.yaml``."""
    select: tuple[str, ...] = ()
    """Codes, prefixes or slugs of the rules to run; empty for all rules."""
    ignore: tuple[str, ...] = ()
    """Codes, prefixes or slugs of the rules not to run."""
    fail_on: Severity = Severity.WARNING
    """The lowest severity that makes the exit code 1."""
    quantize: str | None = None
    """The quantization with which an unquantized checkpoint will be loaded (``--quantize``); None if not set."""
    device: str | None = None
    """The device on which ``--fix`` runs; None for the default (``cuda``)."""
    meta: bool = False
    """Whether factories run on the meta device, without weights."""
    training: str | None = None
    """The accelerate or DeepSpeed file with which training is launched; None if it is not known."""
    baseline: str | None = None
    """The file of accepted violations; None for no baseline."""
    cache_dir: str | None = None
    """The folder of kept results; None for ``.kbitlint_cache`` in the root of the project."""
    exclude: tuple[str, ...] = EXCLUDED
    """What audits of folders leave out beside what git ignores, as lines of a .gitignore."""
    extend_exclude: tuple[str, ...] = ()
    """What they leave out further."""
    force_exclude: bool = False
    """Whether files that the command line names are left out too; a hook of pre-commit names every file."""
    max_file_size: int = _LIMITS.max_file_size
    """Bytes of the largest script, training configuration or notebook code that is read."""
    max_tokens: int = _LIMITS.max_tokens
    """The largest number of tokens in one of these files."""
    max_steps: int = _LIMITS.max_steps
    """The largest number of statements and expressions that are followed in one file."""
    ignore_in: tuple[IgnoreIn, ...] = ()
    """The places in which single rules are not reported, with reasons."""
    severity: tuple[tuple[str, Severity], ...] = ()
    """(code, prefix or slug; severity) that overrides a rule's own severity."""
    options: tuple[tuple[str, dict[str, Any]], ...] = ()
    """(code or slug of a rule, option -> value)."""
    file: str | None = None
    """The configuration file; None for the defaults."""

    @property
    def limits(self) -> Limits:
        """Return the limits for reading files."""
        root = str(Path(self.file).parent) if self.file else ""
        return Limits(self.max_file_size, self.max_tokens, self.max_steps, (*self.exclude, *self.extend_exclude), root)


def find(start: Path) -> Path | None:
    """Return the nearest pyproject.toml at or above a folder that has ``[tool.kbitlint]``; None if there is none.

    Raises:
        ConfigError: If a pyproject.toml cannot be read, or has a table with nearly that name.
    """
    for folder in (start, *start.parents):
        path = folder / "pyproject.toml"
        try:
            content = read(path) if path.is_file() else b""
            if b"tool.kbitlint" in content:
                return path
            _must_be_no_slip(path, content)
        except OSError as error:
            raise ConfigError(path, "tool.kbitlint", f"the file cannot be read: {error.strerror or error}") from error
    return None


def _must_be_no_slip(path: Path, content: bytes) -> None:
    """Raise ConfigError if the name of a table is nearly kbitlint's: its settings would have no effect."""
    for name in _NEARLY.findall(content):
        import difflib  # only a table that begins so needs it

        if difflib.get_close_matches(name.decode().lower(), ["kbitlint"], cutoff=_CLOSE):
            raise ConfigError(path, f"tool.{name.decode()}", "unknown table; did you mean 'tool.kbitlint'?")


def load(path: Path | None, overrides: Iterable[str] = ()) -> Config:
    """Return the configuration of a file; the defaults if ``path`` is None.

    Args:
        path: A pyproject.toml, or a file that holds the keys of ``[tool.kbitlint]`` at its top.
        overrides: Lines of TOML, ``key = value``, which win over the file.

    Raises:
        ConfigError: If the file is not valid TOML, or a key is unknown or has a wrong value. It names the file and
            the key.
    """
    table = {} if path is None else _table_of(path)
    values = {} if path is None else _values(path, "tool.kbitlint.", table)
    for line in overrides:
        values |= _values(Path("--config"), "", _parsed(Path("--config"), line))
    if path is None:
        return Config(**values)
    values["targets"] = tuple(_beside(path, target) for target in values.get("targets", ()))
    for name in ("training", "baseline", "cache_dir"):
        if name.replace("_", "-") in table and values.get(name):
            values[name] = os.path.relpath(path.parent / values[name])
    return Config(**values, file=str(path))


def _table_of(path: Path) -> dict[str, Any]:
    """Return the table of kbitlint in a file."""
    try:
        text = read_text(path)
    except (ValueError, OSError) as error:
        problem = getattr(error, "strerror", None) or error
        raise ConfigError(path, "tool.kbitlint", f"the file is not valid TOML: {problem}") from error
    content = _parsed(path, text)
    tool = content.get("tool", {})
    if path.name != "pyproject.toml" and "tool" not in content:
        return content
    table = tool.get("kbitlint", {}) if isinstance(tool, dict) else tool
    if not isinstance(table, dict):
        raise ConfigError(path, "tool.kbitlint", "must be a table")
    return table


def _parsed(path: Path, text: str) -> dict[str, Any]:
    if sys.version_info >= (3, 11):
        import tomllib  # most scripts' projects have no table of kbitlint
    else:
        import tomli as tomllib  # pragma: no cover  # as above
    try:
        return dict(tomllib.loads(text))
    except (ValueError, RecursionError) as error:  # a number with too many digits raises ValueError
        raise ConfigError(path, "tool.kbitlint", f"the file is not valid TOML: {error}") from error


def _values(path: Path, prefix: str, table: dict[str, Any]) -> dict[str, Any]:
    """Return the fields of Config that a table sets."""
    known = {field.name.replace("_", "-"): field for field in dataclasses.fields(Config) if field.name != "file"}
    values: dict[str, Any] = {}
    for key, value in table.items():
        if key not in known:
            raise ConfigError(path, f"{prefix}{key}", f"unknown key{did_you_mean(key, known)}")
        values[known[key].name] = _read(path, key, value)
    return values


def as_toml(settings: Config, name: str) -> str:
    """Return the value of one field as TOML."""
    value = getattr(settings, name)
    return _toml(dict(value) if name in ("severity", "options") else value)


def _toml(value: Any) -> str:
    if value is None:
        return "# not set"
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = {key: word for key, word in dataclasses.asdict(value).items() if word is not None}
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{json.dumps(key)} = {_toml(word)}" for key, word in value.items()) + " }" if value else "{}"
    if isinstance(value, tuple):
        return f"[{', '.join(map(_toml, value))}]"
    return json.dumps(getattr(value, "value", value))


def _beside(path: Path, target: str) -> str:
    """Return a target next to the configuration file relative to the working folder; other targets unchanged."""
    place, colon, attribute = target.partition(":")
    there = path.parent / place
    try:
        exists = there.exists()
    except OSError:  # a name that is too long for a file; it is still a target string
        exists = False
    if path.parent == Path.cwd() or not place or not exists:
        return target
    return f"{os.path.relpath(there)}{colon}{attribute}"


def _read(path: Path, key: str, value: Any) -> Any:
    name = f"tool.kbitlint.{key}"
    if key in ("targets", "rehearse", "select", "ignore", "exclude", "extend-exclude"):
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise ConfigError(path, name, "must be a list of strings")
        return tuple(value)
    if key in _TABLES:
        return _TABLES[key](path, name, value)
    if key in ("meta", "force-exclude"):
        if not isinstance(value, bool):
            raise ConfigError(path, name, "must be true or false")
        return value
    if key in _NUMBERS:
        return _number(path, name, value)
    if not isinstance(value, str):
        raise ConfigError(path, name, "must be a string")
    if key == "fail-on":
        return _severity(path, name, value)
    if key == "quantize" and value not in QUANTIZATIONS:
        raise ConfigError(path, name, f"{value!r} is none of {', '.join(QUANTIZATIONS)}{did_you_mean(value, QUANTIZATIONS)}")
    return value


def _number(path: Path, name: str, value: Any) -> int:
    """Return a positive number. A key that ends in ``-size`` also accepts a string with a unit."""
    if isinstance(value, str) and name.endswith("-size"):
        try:
            value = size_of(value)
        except ValueError as error:
            raise ConfigError(path, name, str(error)) from error
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        example = 'a size such as "2MB"' if name.endswith("-size") else "a number"
        raise ConfigError(path, name, f"must be {example}, more than 0")
    return value


def _severities(path: Path, name: str, value: Any) -> tuple[tuple[str, Severity], ...]:
    if not isinstance(value, dict):
        raise ConfigError(path, name, 'must be a table: { KB404 = "warning" }')
    return tuple((selector, _severity(path, f"{name}.{selector}", word)) for selector, word in value.items())


def _options(path: Path, name: str, value: Any) -> tuple[tuple[str, dict[str, Any]], ...]:
    if not isinstance(value, dict) or not all(isinstance(item, dict) for item in value.values()):
        raise ConfigError(path, name, "must be a table of tables: { KB104 = { warn-from = 0.1 } }")
    for rule, item in value.items():
        for option, word in item.items():
            if not isinstance(word, (bool, int, float, str)):
                raise ConfigError(path, f"{name}.{rule}.{option}", "must be a number, a string, true or false")
    return tuple(value.items())


def _severity(path: Path, name: str, value: Any) -> Severity:
    names = [severity.value for severity in Severity]
    if value not in names:
        raise ConfigError(path, name, f"{value!r} is none of {', '.join(names)}{did_you_mean(str(value), names)}")
    return Severity(value)


def _ignore_in(path: Path, name: str, value: Any) -> tuple[IgnoreIn, ...]:
    """Return the patterns of ``ignore-in``. Each has a rule and a reason, and may have a path and a target."""
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise ConfigError(path, name, 'must be a list of tables: [{ rule = "KB101", path = "vision.**", reason = "..." }]')
    known = [field.name for field in dataclasses.fields(IgnoreIn)]
    for number, item in enumerate(value):
        for key, word in item.items():
            if key not in known:
                raise ConfigError(path, f"{name}[{number}].{key}", f"unknown key{did_you_mean(key, known)}")
            if not isinstance(word, str) or not word.strip():
                raise ConfigError(path, f"{name}[{number}].{key}", "must be a string that says something")
        for key in ("rule", "reason"):
            if key not in item:
                raise ConfigError(path, f"{name}[{number}].{key}", "is missing: every pattern names a rule and says why")
    return tuple(IgnoreIn(**item) for item in value)


_NUMBERS = ("max-file-size", "max-tokens", "max-steps")
_TABLES = {"ignore-in": _ignore_in, "severity": _severities, "options": _options}
