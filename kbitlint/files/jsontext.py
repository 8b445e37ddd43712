"""JSON with positions: where each value stands in the text, so that one can be changed and the rest left as it is."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from json.decoder import scanstring  # type: ignore[attr-defined]  # the C scanner of the standard library
from typing import Any

MAX_DEPTH = 64
_SPACE = re.compile(r"[ \t\n\r]*")
_SCALAR = re.compile(r"-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][-+]?\d+)?|true|false|null|NaN|-?Infinity")
_LONGEST_NUMBER = 400


class JSONTextError(ValueError):
    """A text that is no JSON, or is nested too deeply."""

    def __init__(self, problem: str, position: int, text: str) -> None:
        line = text.count("\n", 0, position) + 1
        column = position - text.rfind("\n", 0, position)
        super().__init__(f"{problem} (line {line}, column {column})")


@dataclass(frozen=True, slots=True)
class Node:
    """A value with its place."""

    value: Any
    """A scalar; for an object its members by name, for an array its nodes."""
    start: int
    end: int
    keys: tuple[tuple[str, int], ...] = ()
    """For an object: each member's name and where the name starts; the last of equal names counts."""

    def plain(self) -> Any:
        """The value without places."""
        if isinstance(self.value, dict):
            return {name: node.plain() for name, node in self.value.items()}
        return [node.plain() for node in self.value] if isinstance(self.value, list) else self.value


def parse(text: str) -> Node:
    """The value of a JSON text. Raises JSONTextError."""
    node = _value(text, _skip(text, 1 if text.startswith("\ufeff") else 0), 0)
    rest = _skip(text, node.end)
    if rest != len(text):
        raise JSONTextError("something follows the value", rest, text)
    return node


def _skip(text: str, position: int) -> int:
    return _SPACE.match(text, position).end()  # type: ignore[union-attr]  # always matches


def _value(text: str, start: int, depth: int) -> Node:
    if depth > MAX_DEPTH:
        raise JSONTextError(f"is nested more than {MAX_DEPTH} deep", start, text)
    opening = text[start : start + 1]
    if opening == '"':
        value, end = _string(text, start)
        return Node(value, start, end)
    if opening == "{":
        return _object(text, start, depth)
    if opening == "[":
        return _array(text, start, depth)
    found = _SCALAR.match(text, start)
    if found is None or len(found.group()) > _LONGEST_NUMBER:
        raise JSONTextError("a value is expected", start, text)
    return Node(json.loads(found.group()), start, found.end())


def _string(text: str, start: int) -> tuple[str, int]:
    try:
        value, end = scanstring(text, start + 1, True)  # noqa: FBT003  # its signature
    except ValueError as error:
        raise JSONTextError("a string does not end", start, text) from error
    return value, end


def _object(text: str, start: int, depth: int) -> Node:
    members: dict[str, Node] = {}
    keys: list[tuple[str, int]] = []
    position = _skip(text, start + 1)
    if text[position : position + 1] == "}":
        return Node({}, start, position + 1)
    while True:
        if text[position : position + 1] != '"':
            raise JSONTextError("a name in quotes is expected", position, text)
        name, end = _string(text, position)
        colon = _skip(text, end)
        if text[colon : colon + 1] != ":":
            raise JSONTextError("a colon is expected", colon, text)
        members[name] = _value(text, _skip(text, colon + 1), depth + 1)
        keys.append((name, position))
        position, done = _next(text, members[name].end, "}")
        if done:
            return Node(members, start, position, tuple(keys))


def _array(text: str, start: int, depth: int) -> Node:
    items: list[Node] = []
    position = _skip(text, start + 1)
    if text[position : position + 1] == "]":
        return Node([], start, position + 1)
    while True:
        items.append(_value(text, position, depth + 1))
        position, done = _next(text, items[-1].end, "]")
        if done:
            return Node(items, start, position)


def _next(text: str, end: int, closing: str) -> tuple[int, bool]:
    """(where it goes on, whether the object or array ends there)."""
    position = _skip(text, end)
    sign = text[position : position + 1]
    if sign == closing:
        return position + 1, True
    if sign != ",":
        raise JSONTextError(f"a comma or {closing} is expected", position, text)
    return _skip(text, position + 1), False
