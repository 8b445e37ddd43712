"""JSON with the position of each value in the text, so that a value can be changed in place."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from json.decoder import scanstring  # type: ignore[attr-defined]  # the C scanner of the standard library
from typing import Any

from kbitlint.lazy_dataclass import dataclass

MAX_DEPTH = 64
_SPACE = re.compile(r"[ \t\n\r]*")
_SCALAR = re.compile(r"-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][-+]?\d+)?|true|false|null|NaN|-?Infinity")
_LONGEST_NUMBER = 400


class JSONTextError(ValueError):
    """A text that is not JSON or is nested too deeply."""

    def __init__(self, problem: str, position: int, text: str) -> None:
        line = text.count("\n", 0, position) + 1
        column = position - text.rfind("\n", 0, position)
        super().__init__(f"{problem} (line {line}, column {column})")


class TooManyValues(JSONTextError):  # noqa: N818  # a limit of the caller, no error in the text
    """A text with more values than the limit."""


@dataclass(frozen=True, slots=True)
class Node:
    """A value with its position."""

    value: Any
    """A scalar; for an object its members by name, for an array its nodes."""
    start: int
    end: int
    keys: tuple[tuple[str, int], ...] = ()
    """For an object: the name of each member and the offset of the name. If names are equal, the last member counts."""

    def plain(self) -> Any:
        """Return the value without positions."""
        if isinstance(self.value, dict):
            return {name: node.plain() for name, node in self.value.items()}
        return [node.plain() for node in self.value] if isinstance(self.value, list) else self.value


#: called with (nesting depth of the object, member name); returns whether to keep the member's value
Wanted = Callable[[int, str], bool]


def parse(text: str, *, most: int | None = None, wanted: Wanted | None = None) -> Node:
    """Return the value of a JSON text.

    Args:
        text: The text.
        most: The largest number of values; None for no limit.
        wanted: Selects the members of objects to keep. The value of any other member is skipped and is None.

    Raises:
        JSONTextError: If the text is not JSON, has more values, or is nested too deeply.
    """
    reader = _Reader(text, most, wanted)
    node = reader.value(reader.skip(1 if text.startswith("\ufeff") else 0), 0)
    rest = reader.skip(node.end)
    if rest != len(text):
        raise JSONTextError("something follows the value", rest, text)
    return node


class _Reader:
    """A reader that passes over a JSON text once."""

    def __init__(self, text: str, most: int | None, wanted: Wanted | None) -> None:
        self._text = text
        self._most = most
        self._left = len(text) + 1 if most is None else most
        self._wanted = wanted
        self._scan = json.JSONDecoder().raw_decode

    def skip(self, position: int) -> int:
        """Return the offset of the next character that is no white space."""
        return _SPACE.match(self._text, position).end()  # type: ignore[union-attr]  # always matches

    def value(self, start: int, depth: int) -> Node:
        """Return the value that starts at an offset."""
        text = self._text
        self._left -= 1
        if self._left < 0:
            raise TooManyValues(f"holds more than {self._most:,} values", start, text)
        if depth > MAX_DEPTH:
            raise JSONTextError(f"is nested more than {MAX_DEPTH} deep", start, text)
        opening = text[start : start + 1]
        if opening == '"':
            value, end = self._string(start)
            return Node(value, start, end)
        if opening == "{":
            return self._object(start, depth)
        if opening == "[":
            return self._array(start, depth)
        found = _SCALAR.match(text, start)
        if found is None or found.end() - start > _LONGEST_NUMBER:
            raise JSONTextError("a value is expected", start, text)
        return Node(json.loads(found.group()), start, found.end())

    def _over(self, start: int) -> Node:
        """Skip a value with the C scanner."""
        try:
            _, end = self._scan(self._text, start)
        except RecursionError as error:
            raise JSONTextError("is nested too deeply", start, self._text) from error
        except (ValueError, StopIteration) as error:
            raise JSONTextError("a value is expected", start, self._text) from error
        return Node(None, start, end)

    def _string(self, start: int) -> tuple[str, int]:
        try:
            value, end = scanstring(self._text, start + 1, True)  # noqa: FBT003  # its signature
        except ValueError as error:
            raise JSONTextError("a string does not end", start, self._text) from error
        return value, end

    def _object(self, start: int, depth: int) -> Node:
        text = self._text
        members: dict[str, Node] = {}
        keys: list[tuple[str, int]] = []
        position = self.skip(start + 1)
        if text[position : position + 1] == "}":
            return Node({}, start, position + 1)
        while True:
            if text[position : position + 1] != '"':
                raise JSONTextError("a name in quotes is expected", position, text)
            name, end = self._string(position)
            colon = self.skip(end)
            if text[colon : colon + 1] != ":":
                raise JSONTextError("a colon is expected", colon, text)
            place = self.skip(colon + 1)
            kept = self._wanted is None or self._wanted(depth, name)
            members[name] = self.value(place, depth + 1) if kept else self._over(place)
            keys.append((name, position))
            position, done = self._next(members[name].end, "}")
            if done:
                return Node(members, start, position, tuple(keys))

    def _array(self, start: int, depth: int) -> Node:
        items: list[Node] = []
        position = self.skip(start + 1)
        if self._text[position : position + 1] == "]":
            return Node([], start, position + 1)
        while True:
            items.append(self.value(position, depth + 1))
            position, done = self._next(items[-1].end, "]")
            if done:
                return Node(items, start, position)

    def _next(self, end: int, closing: str) -> tuple[int, bool]:
        """Return (offset after the comma or closing bracket, whether it is the bracket)."""
        position = self.skip(end)
        sign = self._text[position : position + 1]
        if sign == closing:
            return position + 1, True
        if sign != ",":
            raise JSONTextError(f"a comma or {closing} is expected", position, self._text)
        return self.skip(position + 1), False
