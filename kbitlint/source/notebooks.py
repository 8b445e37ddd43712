"""Notebooks as one Python text: the code cells in their order, character for character, without magics."""

from __future__ import annotations

import ast
import bisect
import json
import re
import warnings
from dataclasses import dataclass

from kbitlint.files.jsontext import JSONTextError, Node, parse
from kbitlint.source.rewriting import OverlapError

#: cells in another language, or that are written to a file
_FOREIGN = re.compile(r"\s*%%(?!time\b|timeit\b|capture\b|prun\b|memit\b)")
_MAGIC = re.compile(r"^(\s*)(?:[%!?].*|[\w.\[\]]+\?{1,2}\s*)$")
_ASSIGNED = re.compile(r"^(\s*[\w, ]+=\s*)[%!].*$")


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

    def place(self, line: int) -> tuple[int, int]:
        """(number of the cell, line in it), both 1-based, of a line of the joined text."""
        starts = [self.python.count("\n", 0, cell.start) + 1 for cell in self.cells]
        index = max(bisect.bisect_right(starts, line) - 1, 0)
        return self.cells[index].number, line - starts[index] + 1

    def joined(self) -> str:
        """The cells as they are, magics included."""
        return "\n".join(cell.source for cell in self.cells)

    def written(self, changed: str) -> str:
        """The JSON text after the joined cells have become ``changed``, all else as it was.

        Raises OverlapError where the cells cannot be told apart any more.
        """
        parts = _split(changed, self.joined(), self.cells)
        text = self.raw
        for cell, source in sorted(zip(self.cells, parts, strict=True), key=lambda pair: pair[0].node.start, reverse=True):
            if source != cell.source:
                text = text[: cell.node.start] + _encoded(source, cell.node, self.raw) + text[cell.node.end :]
        return text


def read(raw: str) -> Notebook:
    """The code cells of a notebook. Raises NotebookError."""
    try:
        root = parse(raw)
    except JSONTextError as error:
        raise NotebookError(f"is not valid JSON: {error}") from error
    cells = root.value.get("cells") if isinstance(root.value, dict) else None
    if cells is None or not isinstance(cells.value, list):
        raise NotebookError("cells: must be a list, as in nbformat 4")
    found: list[Cell] = []
    python: list[str] = []
    start = 0
    for number, cell in enumerate(cells.value, start=1):
        source = _source(cell)
        if source is None:
            continue
        text, node = source
        found.append(Cell(number, text, node, start))
        python.append(_python(text))
        start += len(text) + 1
    return Notebook(raw, tuple(found), "\n".join(python))


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


def _split(changed: str, before: str, cells: tuple[Cell, ...]) -> list[str]:
    """The changed cells: what stands between the first and the last difference of each stays inside its cell."""
    if changed == before:
        return [cell.source for cell in cells]
    import difflib

    old, new = before.split("\n"), changed.split("\n")
    where = list(range(len(old) + 1))
    shift = dict.fromkeys(where, -1)
    for tag, i1, i2, j1, j2 in difflib.SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
        for line in range(i1, i2 + 1):
            if tag == "equal":
                shift[line] = j1 + line - i1
            elif shift[line] < 0:
                shift[line] = j1 if line < i2 else j2
    parts = []
    first = 0
    for cell in cells:
        last = first + cell.source.count("\n") + 1
        start, end = shift[first] if first else 0, shift[last] if last < len(old) else len(new)
        if start < 0 or end < start:
            raise OverlapError("the cells of the notebook cannot be told apart")
        parts.append("\n".join(new[start:end]))
        first = last
    if "\n".join(parts) != changed:
        raise OverlapError("the cells of the notebook cannot be told apart")
    return parts


def _encoded(source: str, node: Node, raw: str) -> str:
    """The JSON of a cell's source, written like the one it replaces."""
    ascii_only = raw.isascii()
    if not isinstance(node.value, list):
        return json.dumps(source, ensure_ascii=ascii_only)
    lines = source.splitlines(keepends=True)
    between = raw[node.value[0].end : node.value[1].start] if len(node.value) > 1 else None
    if between is None:
        indent = re.match(r"\s*", raw[node.start + 1 :]).group()  # type: ignore[union-attr]  # always matches
        between = "," + (indent or " ")
    opening = raw[node.start : node.value[0].start] if node.value else "["
    closing = raw[node.value[-1].end : node.end] if node.value else "]"
    return opening + between.join(json.dumps(line, ensure_ascii=ascii_only) for line in lines) + closing
