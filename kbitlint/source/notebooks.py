"""Notebooks: their code cells, joined as one Python text, and edits of their JSON text.

In ``Notebook.python``, expressions without effect replace the magics, so each character keeps its offset. This file
collects no facts.
"""

from __future__ import annotations

import ast
import bisect
import json
import re
import warnings
from typing import TYPE_CHECKING

from kbitlint.facts.span_edits import OverlapError, bounds
from kbitlint.files.json_text import JSONTextError, Node, TooManyValues, parse
from kbitlint.lazy_dataclass import dataclass
from kbitlint.limits import current
from kbitlint.source.line_ends import unified
from kbitlint.source.offsets import has_more_tokens
from kbitlint.source.soundness import fault_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from kbitlint.violation import Edit

#: Starts of cells that hold another language, or that a magic writes to a file.
_FOREIGN = re.compile(r"\s*%%(?!time\b|timeit\b|capture\b|prun\b|memit\b)")
_MAGIC = re.compile(r"^(\s*)(?:[%!?].*|[\w.\[\]]+\?{1,2}\s*)$")
_ASSIGNED = re.compile(r"^(\s*[\w,][\w, ]*=\s*)[%!].*$")


#: Number of tokens that take as long to read as one value of JSON with its place.
_PARTS = 2
_KEY = "max-tokens of [tool.kbitlint] sets twice how many"


class NotebookError(ValueError):
    """A notebook that is invalid or too large; the message contains the reason."""


@dataclass(frozen=True, slots=True)
class Cell:
    """A code cell: its number among all cells (1-based), its source, and its node in the JSON text."""

    number: int
    source: str
    node: Node
    start: int
    """The offset at which the cell starts in the joined text."""


@dataclass(frozen=True, slots=True)
class Notebook:
    """The JSON text of a notebook, its code cells, and their Python text without magics."""

    raw: str
    cells: tuple[Cell, ...]
    python: str
    notes: str = ""
    """The text cells, and the GPU that Colab's metadata names."""

    def joined(self) -> str:
        """Return the joined sources of the cells, magics included."""
        return "\n".join(cell.source for cell in self.cells)

    def offset_of(self, number: int, line: int, column: int = 1) -> int | None:
        """Return the offset in the JSON text of a place in a cell; None if there is no such cell.

        Args:
            number: The number of the cell, 1-based.
            line: The line in the cell, 1-based.
            column: The column in the line, 1-based.
        """
        cell = next((cell for cell in self.cells if cell.number == number), None)
        if cell is None:
            return None
        index = sum(len(text) + 1 for text in cell.source.split("\n")[: line - 1]) + column - 1
        places = _places(self.raw, cell.node)
        if not places:
            return cell.node.start
        return places[index][0] if index < len(places) else places[-1][1]

    def faults(self) -> dict[int, str]:
        """Return the compile errors of cells, by cell number; cells in another language have none."""
        found = {cell.number: fault_of(without_magics(cell.source), cell=True) for cell in self.cells}
        return {number: fault for number, fault in found.items() if fault}

    def written(self, edits: Iterable[Edit]) -> str:
        """Return the JSON text after edits of the joined cells; everything else is unchanged.

        Raises:
            OverlapError: An edit spans two cells.
        """
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
            node = self.cells[index].node
            text = text[: node.start] + _rewritten(self.raw, self.cells[index], changes[index]) + text[node.end :]
        return text


def read(raw: str) -> Notebook:
    """Return the code cells of a notebook; values of outputs and text cells are not kept.

    Raises:
        NotebookError: The text is no notebook of nbformat 4, or is too large.
    """
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
    notes = re.findall(r'"gpuType":\s*"(\w{1,16})"', raw)
    start = 0
    for number, cell in enumerate(cells.value, start=1):
        notes += _note(cell)
        source = _source(cell)
        if source is None:
            continue
        text, node = source
        found.append(Cell(number, text, node, start))
        start += len(text) + 1
    joined = "\n".join(cell.source for cell in found)
    most = current().max_tokens // _PARTS
    if has_more_tokens(joined, most):  # check this first: below, each cell is parsed, and then the joined text
        raise NotebookError(f"holds more than {most:,} words and signs of code, and is skipped ({_KEY})")
    return Notebook(raw, tuple(found), "\n".join(_python(cell.source) for cell in found), "\n".join(notes))


def _wanted(depth: int, name: str) -> bool:
    """Return whether a member of the notebook, or of one of its cells, is read."""
    return name == "cells" if depth == 0 else name in ("cell_type", "source")


def _note(cell: Node) -> list[str]:
    """Return the lines of a text cell; none for code."""
    found = _source(cell, "markdown")
    return [] if found is None else [found[0]]


def _source(cell: Node, wanted: str = "code") -> tuple[str, Node] | None:
    members = cell.value if isinstance(cell.value, dict) else {}
    kind, source = members.get("cell_type"), members.get("source")
    if kind is None or kind.value != wanted or source is None:
        return None
    parts = source.value if isinstance(source.value, list) else [source]
    if not all(isinstance(part.value, str) for part in parts):
        return None
    return "".join(unified(part.value) for part in parts), source


def _python(source: str) -> str:
    """Return a cell with its magics replaced, at unchanged offsets; a cell that is no Python is blank."""
    text = without_magics(source)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return blank(source)
    return text


def without_magics(source: str) -> str:
    """Return a cell with its magics replaced, at unchanged offsets; a cell in another language is blank."""
    if _FOREIGN.match(source):
        return blank(source)
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
    return "\n".join(lines)


def _nothing(length: int) -> str:
    """Return an expression of this length that has no effect."""
    return "" if length == 0 else "0" if length == 1 else "0#" + " " * (length - 2)


def blank(source: str) -> str:
    """Return a text of blanks with the same lines."""
    return re.sub(r"[^\n]", " ", source)


#: One character of a JSON string, as the text writes it; a line end is one character, also as CRLF.
_CHARACTER = re.compile(
    r"(?:\\r|\\u000[dD])(?:\\n|\\u000[aA])"
    r"|\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|\\u[0-9a-fA-F]{4}|\\.|[^\\]"
)
_LINE_END = re.compile(r"(?:\\r|\\u000[dD])?(?:\\n|\\u000[aA])|\\r|\\u000[dD]")
_Written = list[tuple[str, str]]
"""The characters of a cell as the text writes them, each with the text between it and the next one."""


def _rewritten(raw: str, cell: Cell, changes: Iterable[tuple[int, int, str]]) -> str:
    """Return the JSON text of a cell's source after changes; unchanged characters keep their form."""
    opening, characters, closing = _characters(raw, cell.node)
    between = _between(raw, cell.node)
    for start, end, code in sorted(changes, reverse=True):
        line_end = _line_end(characters, start)
        characters[start:end] = [
            (line_end, between) if letter == "\n" else (json.dumps(letter, ensure_ascii=raw.isascii())[1:-1], "")
            for letter in code
        ]
    if characters and not cell.source.endswith("\n") and _LINE_END.fullmatch(characters[-1][0]):
        characters.pop()
    last = characters.pop()[0] if characters else ""
    return opening + "".join(letter + after for letter, after in characters) + last + closing


def _characters(raw: str, node: Node) -> tuple[str, _Written, str]:
    """Return the text before the first character of a cell, the characters, and the text after the last."""
    places = _places(raw, node)
    if not places:
        return ('["', [], '"]') if isinstance(node.value, list) else ('"', [], '"')
    following = [start for start, _ in places[1:]] + [places[-1][1]]
    characters = [(raw[start:end], raw[end:then]) for (start, end), then in zip(places, following, strict=True)]
    return raw[node.start : places[0][0]], characters, raw[places[-1][1] : node.end]


def _places(raw: str, node: Node) -> list[tuple[int, int]]:
    """Return the (start, end) offset in the JSON text of each character of a cell."""
    parts = node.value if isinstance(node.value, list) else [node]
    return [match.span() for part in parts for match in _CHARACTER.finditer(raw, part.start + 1, part.end - 1)]


def _between(raw: str, node: Node) -> str:
    """Return the text between two lines of a cell.

    It is empty if the source is one string. In a list of strings, it is the end of one and the start of the next.
    """
    if not isinstance(node.value, list):
        return ""
    if len(node.value) > 1:
        return f'"{raw[node.value[0].end : node.value[1].start]}"'
    indent = re.match(r"\s*", raw[node.start + 1 :]).group()  # type: ignore[union-attr]  # always matches
    return f'",{indent or " "}"'


def _line_end(characters: _Written, start: int) -> str:
    """Return the line end of the line at an offset; that of the line before it if it has none."""
    for letter, _ in (*characters[start:], *reversed(characters[:start])):
        if _LINE_END.fullmatch(letter):
            return letter
    return "\\n"
