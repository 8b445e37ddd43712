"""Physical locations: a file and a line for each violation, for formats that require a file.

GitHub code scanning refuses a result without a file. A module of a model has none, so its place is the source of the
model: the factory's ``def`` or the folder's config.json. If neither is known, it is the project's pyproject.toml.
"""

from __future__ import annotations

import ast
import functools
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from kbitlint.files.project import file_of
from kbitlint.lazy_dataclass import dataclass
from kbitlint.module_paths import fold_all
from kbitlint.runtime import content

if TYPE_CHECKING:
    from collections.abc import Iterable

    from kbitlint.result import AuditResult
    from kbitlint.source.notebooks import Notebook
    from kbitlint.violation import Location, Violation

LAST_RESORT = "pyproject.toml"
"""The file of results whose target has no file: Hub ids and live models."""


@dataclass(frozen=True, slots=True, order=True)
class Place:
    """A file and a line in it."""

    file: str
    """The path from the working folder, or an absolute one."""
    line: int = 1
    """1-based; for a notebook the line of its JSON."""
    column: int = 0
    """1-based column of the start; 0 if only the line is known."""
    end_line: int = 0
    """1-based line of the end; 0 as above."""
    end_column: int = 0
    """1-based column behind the last character; 0 as above."""

    @property
    def uri(self) -> str:
        """The file as a URI, relative to the working folder if the file is below it."""
        path = Path(self.file)
        if not path.is_absolute():
            return _quoted(path)
        here = Path.cwd()
        return _quoted(path.relative_to(here)) if path.is_relative_to(here) else path.as_uri()


def _quoted(path: Path) -> str:
    """Return a relative path as a URI; it quotes the bytes of the name, which need not be UTF-8."""
    return quote(os.fsencode(path.as_posix()))


@dataclass(frozen=True, slots=True)
class Found:
    """Violations with one cause at one place, which formats that count results report once."""

    place: Place
    first: Violation
    modules: tuple[tuple[str, int], ...]
    """A (module path with folded layer numbers, count) pair for each distinct path of the violations."""
    violations: tuple[Violation, ...]
    reason: str | None = None
    """The reason of the suppression; None if the violations are not suppressed."""

    @property
    def count(self) -> int:
        """The number of violations."""
        return len(self.violations)

    @property
    def message(self) -> str:
        """The message, followed by up to ``_SHOWN`` of the modules."""
        cell = _CELL.match(self.first.at.path)
        if cell is not None and self.first.at.line:
            return f"{cell[0]}, line {self.first.at.line}: {self.first.message}"
        named = [f"{path} ({count})" if count > 1 else path for path, count in self.modules if path != "(model)"]
        shown = ", ".join(named[:_SHOWN]) + (f" and {len(named) - _SHOWN} more" if len(named) > _SHOWN else "")
        return f"{self.first.message}: {shown}" if shown else self.first.message


_SHOWN = 4
_CELL = re.compile(r"cell (\d+)\b")


def place_of(target: str, violation: Violation | None = None) -> Place:
    """Return the physical place of a violation in a target, or of the target itself."""
    if violation is not None and violation.at.file:
        return _place_in(file_of(target, violation.at.file), violation.at)
    path, place, attribute = Path(target), *_split(target)
    if target and path.is_dir():
        name = next((name for name in ("adapter_config.json", "config.json") if (path / name).is_file()), "config.json")
        return Place(str(path / name))
    if target and path.is_file():
        return Place(target)
    file = place if place.endswith(".py") else place.replace(".", "/") + ".py"
    if attribute and Path(file).is_file():
        return Place(file, _line_of(Path(file), attribute))
    return Place(LAST_RESORT)


def _place_in(file: str, at: Location) -> Place:
    cell = _CELL.match(at.path)
    if cell is not None and at.line:
        return _in_notebook(file, int(cell[1]), at)
    return Place(file, at.line or 1, at.column or 0, at.end_line or 0, at.end_column or 0)


def _in_notebook(file: str, cell: int, at: Location) -> Place:
    """Return the place of a line of a cell in the notebook's JSON."""
    from kbitlint.output.replacements import place_at  # only notebooks need it

    notebook = _notebook(file)
    start = None if notebook is None else notebook.offset_of(cell, at.line or 1, at.column or 1)
    if notebook is None or start is None:
        return Place(file)
    line, column = place_at(notebook.raw, start)
    end = notebook.offset_of(cell, at.end_line, at.end_column) if at.end_line and at.end_column else None
    return Place(file, line) if end is None else Place(file, line, column, *place_at(notebook.raw, end))


@functools.lru_cache(maxsize=1)
def _notebook(file: str) -> Notebook | None:
    from kbitlint.output.replacements import text_of  # as above
    from kbitlint.source import notebooks  # as above

    raw = text_of(file)
    try:
        return None if raw is None else notebooks.read(raw)
    except notebooks.NotebookError:
        return None


def found(report: AuditResult) -> list[Found]:
    """Return the violations of a report, grouped by place, suppression and cause; suppressed ones are last."""
    groups: dict[tuple[object, ...], list[Violation]] = {}
    for violation in report.violations:
        groups.setdefault((place_of(report.target, violation), None, violation.cause), []).append(violation)
    for entry in report.suppressed:
        violation = entry.violation
        groups.setdefault((place_of(report.target, violation), entry.reason, violation.cause), []).append(violation)
    made = [_found(key, violations) for key, violations in groups.items()]
    return sorted(made, key=lambda f: (f.reason is not None, f.place, f.first.code, f.first.message))


def _found(key: tuple[object, ...], violations: list[Violation]) -> Found:
    place, reason, _ = key
    assert isinstance(place, Place)  # noqa: S101  # the key is made by found()
    modules = tuple(fold_all(violation.at.path or "(model)" for violation in violations))
    return Found(place, violations[0], modules, tuple(violations), None if reason is None else str(reason))


def _split(target: str) -> tuple[str, str]:
    place, _, attribute = target.rpartition(":")
    return place, attribute


def _line_of(path: Path, attribute: str) -> int:
    """Return the line of a function; 1 if the file is unreadable or does not define it."""
    try:
        tree = ast.parse(content.read(path))
    except (OSError, SyntaxError, ValueError, RecursionError, MemoryError):  # the last two: too deep nesting
        return 1
    return next(iter(_lines(tree.body, attribute)), 1)


def _lines(body: Iterable[ast.stmt], attribute: str) -> list[int]:
    name, _, rest = attribute.partition(".")
    lines: list[int] = []
    for statement in body:
        if not isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)) or statement.name != name:
            continue
        lines += _lines(statement.body, rest) or [statement.lineno] if rest else [statement.lineno]
    return lines
