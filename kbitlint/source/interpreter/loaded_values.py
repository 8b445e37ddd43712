"""Values that a script reads from a text of its own, or from a file of YAML or JSON beside it."""

from __future__ import annotations

import dataclasses
import posixpath
from typing import TYPE_CHECKING

from kbitlint.facts.values import UNKNOWN, Span, Style
from kbitlint.runtime.content import read_text
from kbitlint.source.interpreter.objects import Constant, Entry, Object, Record, Sequence

if TYPE_CHECKING:
    from pathlib import Path

#: functions that return what a text or an open file holds, and whether that is JSON. PyYAML follows YAML 1.1, by which
#: ``2e-4`` is a text
LOADERS = {
    **dict.fromkeys(("yaml.safe_load", "yaml.load", "yaml.full_load", "yaml.unsafe_load"), False),
    **dict.fromkeys(("json.load", "json.loads"), True),
    "omegaconf.OmegaConf.load": False,
}
#: the callee of a path
PATH = "pathlib.Path"
_ENDS = (".yaml", ".yml", ".json")
#: bytes of the longest configuration
_MOST = 100_000


def path_of(value: Object) -> str | None:
    """Return the path that a text or a ``Path`` is, relative to the folder of the script; None if it is not known."""
    while isinstance(value, Record) and value.callee in (PATH, "open"):
        value = value.get("0")
    return value.value if isinstance(value, Constant) and isinstance(value.value, str) else None


def joined_path(parts: list[Object], span: Span) -> Object:
    """Return the path that parts make together; UNKNOWN if one of them is not known."""
    known = [path_of(part) for part in parts]
    texts = [part for part in known if part is not None]
    if not texts or len(texts) < len(known):
        return UNKNOWN
    flag = next((part.flag for part in parts if isinstance(part, Constant) and part.flag), "")
    return Record(PATH, {"0": Entry(Constant(posixpath.join(*texts), flag), span, span)}, span=span)


def folder_of(value: Object, span: Span) -> Object:
    """Return the folder of a path; UNKNOWN if the path is not known."""
    path = path_of(value)
    return UNKNOWN if path is None else joined_path([Constant(posixpath.dirname(path))], span)


def is_open_file(name: str, arguments: Record) -> bool:
    """Return whether a call opens a file of YAML or JSON, whose name is known, to read it."""
    mode = arguments.get("1" if "1" in arguments.items else "mode")
    reads = not (isinstance(mode, Constant) and set(str(mode.value)) & set("wax+"))
    return name == "open" and reads and str(path_of(arguments.get("0"))).endswith(_ENDS)


def loaded_value(name: str, arguments: Record, beside: Path | None) -> Object:
    """Return the table that a script loads from a text or an open file; UNKNOWN if it loads no table.

    The place of each value is the start of the call: no edit of the script could change one.

    Args:
        name: The loader, one of ``LOADERS``.
        arguments: Its arguments.
        beside: The folder of the script; None if it is unknown.
    """
    from kbitlint.source.configs.tree import ConfigurationError, json_items, yaml_items  # few scripts load such values

    first = next((one.value for one in arguments.items.values()), UNKNOWN)
    read = json_items if LOADERS[name] else yaml_items
    try:
        text = _text(first, beside, whole=not name.endswith(("json.load", "OmegaConf.load")))
        made = read(text) if text is not None else None
    except (ConfigurationError, OSError, ValueError):
        return UNKNOWN
    flag = first.flag if isinstance(first, Constant) else ""
    opened = first.get("0") if isinstance(first, Record) else UNKNOWN
    flag = opened.flag if isinstance(opened, Constant) else flag
    place = Span(arguments.span.start, arguments.span.start, arguments.span.line)
    return UNKNOWN if made is None else _placed(made, place, flag)


def _text(given: Object, beside: Path | None, *, whole: bool) -> str | None:
    """Return the text that a loader reads; ``whole`` if a text that it is given is not the name of a file."""
    if isinstance(given, Constant) and whole:
        return given.value if isinstance(given.value, str) and len(given.value) <= _MOST else None
    path = path_of(given)
    if path is None or beside is None or not path.endswith(_ENDS):
        return None
    return read_text(beside / path, _MOST)


def _placed(value: Object, span: Span, flag: str) -> Object:
    """Return a value with another place, as a default of the option that names the file."""
    if isinstance(value, Record):
        items = {name: Entry(_placed(one.value, span, flag), span, span) for name, one in value.items.items()}
        return Record(items=items, complete=value.complete, span=span, style=Style.DICT)
    if isinstance(value, Sequence):
        return Sequence([_placed(one, span, flag) for one in value.values])
    return dataclasses.replace(value, flag=flag) if isinstance(value, Constant) and flag else value
