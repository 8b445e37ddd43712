"""Notebooks as one Python text: the code cells in their order, character for character, without magics."""

from __future__ import annotations

import ast
import bisect
import json
import re
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kbitlint.files.jsontext import JSONTextError, Node, TooManyValues, parse
from kbitlint.limits import current
from kbitlint.source.rewriting import OverlapError, bounds
from kbitlint.source.text import has_more_tokens

if TYPE_CHECKING:
    from collections.abc import Iterable

    from kbitlint.violation import Edit

#: cells in another language, or that are written to a file
_FOREIGN = re.compile(r"\s*%%(?!time\b|timeit\b|capture\b|prun\b|memit\b)")
_MAGIC = re.compile(r"^(\s*)(?:[%!?].*|[\w.\[\]]+\?{1,2}\s*)$")
_ASSIGNED = re.compile(r"^(\s*[\w,][\w, ]*=\s*)[%!].*$")


#: tokens that take as long to read as one value with its place
_PARTS = 2
_KEY = "max-tokens of [tool.kbitlint] sets twice how many"


class NotebookError(ValueError):
    """A text that is no notebook."""


@dataclass(frozen=True, slots=True)
class Cell:
    """A code cell: its number among all cells, its source, and where it stands in the JSON text."""

    number: int
    source: str
    node: Node
    start: int
    """Where it starts in the joined text."""


@dataclass(frozen=True, slots=True)
class Notebook:
    """A notebook's JSON text, its code cells, and what Python sees of them."""

    raw: str
    cells: tuple[Cell, ...]
    python: str

    def joined(self) -> str:
        """The cells as they are, magics included."""
        return "\n".join(cell.source for cell in self.cells)

    def written(self, edits: Iterable[Edit]) -> str:
        """The JSON text after edits of the joined cells, all else as it was. Raises OverlapError for one across cells."""
        changes: dict[int, list[tuple[int, int, str]]] = {}
        for edit in edits:
            start, end = bounds(edit)
            index = max(bisect.bisect_right([cell.start for cell in self.cells], start) - 1, 0)
            cell = self.cells[index]
            last = cell.start + len(cell.source)
            if end > last + 1:
                raise OverlapError("an edit across two cells")
            changes.setdefault(index, []).append((start - cell.start, min(end, last) - cell.start, str(edit.arguments["text"])))
        text = self.raw
        for index in sorted(changes, key=lambda index: self.cells[index].node.start, reverse=True):
            cell = self.cells[index]
            source = cell.source
            for start, end, code in sorted(changes[index], reverse=True):
                source = source[:start] + code + source[end:]
            if not cell.source.endswith("\n"):
                source = source.removesuffix("\n")
            text = text[: cell.node.start] + _encoded(source, cell.node, self.raw) + text[cell.node.end :]
        return text


def read(raw: str) -> Notebook:
    """The code cells of a notebook; of the rest, outputs and texts, no value is kept. Raises NotebookError."""
    try:
        root = parse(raw, most=current().max_tokens // _PARTS, wanted=_wanted)
    except TooManyValues as error:
        raise NotebookError(f"{error}, and is skipped ({_KEY})") from error
    except JSONTextError as error:
        raise NotebookError(f"is not valid JSON: {error}") from error
    cells = root.value.get("cells") if isinstance(root.value, dict) else None
    if cells is None or not isinstance(cells.value, list):
        raise NotebookError("cells: must be a list, as in nbformat 4")
    found: list[Cell] = []
    start = 0
    for number, cell in enumerate(cells.value, start=1):
        source = _source(cell)
        if source is None:
            continue
        text, node = source
        found.append(Cell(number, text, node, start))
        start += len(text) + 1
    joined = "\n".join(cell.source for cell in found)
    most = current().max_tokens // _PARTS
    if has_more_tokens(joined, most):  # before any cell is parsed: each is, and then all of them
        raise NotebookError(f"holds more than {most:,} words and signs of code, and is skipped ({_KEY})")
    return Notebook(raw, tuple(found), "\n".join(_python(cell.source) for cell in found))


def _wanted(depth: int, name: str) -> bool:
    """Return whether a member of the notebook, or of one of its cells, is looked at."""
    return name == "cells" if depth == 0 else name in ("cell_type", "source")


def _source(cell: Node) -> tuple[str, Node] | None:
    members = cell.value if isinstance(cell.value, dict) else {}
    kind, source = members.get("cell_type"), members.get("source")
    if kind is None or kind.value != "code" or source is None:
        return None
    value = source.plain()
    text = "".join(value) if isinstance(value, list) and all(isinstance(line, str) for line in value) else value
    return (text, source) if isinstance(text, str) else None


def _python(source: str) -> str:
    """The cell without magics, every character at its place; blank where it is no Python."""
    if _FOREIGN.match(source):
        return _blank(source)
    lines = source.split("\n")
    continued = False
    for index, line in enumerate(lines):
        magic, assigned = _MAGIC.match(line), _ASSIGNED.match(line)
        if continued or (magic and (line.lstrip()[:1] in "%!?" or line.rstrip().endswith("?"))):
            indent = len(line) - len(line.lstrip())
            continued = line.endswith("\\")
            lines[index] = line[:indent] + _nothing(len(line) - indent)
        elif assigned:
            lines[index] = assigned.group(1) + _nothing(len(line) - len(assigned.group(1)))
    text = "\n".join(lines)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return _blank(source)
    return text


def _nothing(length: int) -> str:
    """An expression without effect, of this length."""
    return "" if length == 0 else "0" if length == 1 else "0#" + " " * (length - 2)


def _blank(source: str) -> str:
    return re.sub(r"[^\n]", " ", source)


def _encoded(source: str, node: Node, raw: str) -> str:
    """The JSON of a cell's source, written like the one it replaces."""
    ascii_only = raw.isascii()
    if not isinstance(node.value, list):
        return json.dumps(source, ensure_ascii=ascii_only)
    lines = source.splitlines(keepends=True)
    if not lines:
        return "[]"
    between = raw[node.value[0].end : node.value[1].start] if len(node.value) > 1 else None
    if between is None:
        indent = re.match(r"\s*", raw[node.start + 1 :]).group()  # type: ignore[union-attr]  # always matches
        between = "," + (indent or " ")
    opening = raw[node.start : node.value[0].start] if node.value else "["
    closing = raw[node.value[-1].end : node.end] if node.value else "]"
    return opening + between.join(json.dumps(line, ensure_ascii=ascii_only) for line in lines) + closing
