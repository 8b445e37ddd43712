"""Edits of keys in JSON files. Formatting, the order of keys and the end of the file stay unchanged."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from kbitlint.errors import TargetError
from kbitlint.files.json_text import JSONTextError, Node, parse

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from kbitlint.violation import Edit

SET, REMOVE, RENAME = "set-json-key", "remove-json-key", "rename-json-key"
KINDS = (SET, REMOVE, RENAME)


def changed(path: Path, text: str, edits: Iterable[Edit]) -> str:
    """Return the text of a file after its edits.

    Raises:
        TargetError: If the text is no JSON, or a key is not where the edit expects it.
    """
    for edit in edits:
        try:
            root = parse(text)
        except JSONTextError as error:
            raise TargetError(path, f"is not valid JSON: {error}") from error
        *parents, name = str(edit.arguments["key"]).split(".")
        owner = root
        for parent in parents:
            member = owner.value.get(parent) if isinstance(owner.value, dict) else None
            if member is None:
                raise TargetError(path, f"{edit.arguments['key']}: is not there any more")
            owner = member
        if not isinstance(owner.value, dict):
            raise TargetError(path, f"{edit.arguments['key']}: is no key of an object")
        text = _changed(text, owner, name, edit)
    return text


def _changed(text: str, owner: Node, name: str, edit: Edit) -> str:
    member = owner.value.get(name)
    if edit.kind == REMOVE:
        return text if member is None else _without(text, owner, name, member)
    if edit.kind == RENAME:
        if member is None:
            return text
        start = dict(owner.keys)[name]
        end = text.index(":", start + len(json.dumps(name, ensure_ascii=text.isascii())) - 1)
        return text[:start] + json.dumps(str(edit.arguments["to"])) + text[end:]
    value = json.dumps(edit.arguments["value"], ensure_ascii=text.isascii())
    if member is not None:
        return text[: member.start] + value + text[member.end :]
    written = f"{json.dumps(name)}: {value}"
    if not owner.keys:
        return text[: owner.start] + "{" + written + "}" + text[owner.end :]
    last = max(node.end for node in owner.value.values())
    return text[:last] + "," + _between(text, owner) + written + text[last:]


def _between(text: str, owner: Node) -> str:
    """Return the text before a new member: the line end and indentation of the first member, or a blank."""
    first = owner.keys[0][1]
    before = text[owner.start : first]
    return before[len(before.rstrip("{ \t\n\r\f\v")) :].lstrip("{") or " "


def _without(text: str, owner: Node, name: str, member: Node) -> str:
    starts = [start for _, start in owner.keys]
    start = dict(owner.keys)[name]
    position = starts.index(start)
    if position + 1 < len(starts):
        return text[:start] + text[starts[position + 1] :]
    if position:
        before = owner.value[owner.keys[position - 1][0]].end
        return text[:before] + text[member.end :]
    return text[: owner.start] + "{}" + text[owner.end :]
