"""Numbers that YAML 1.1 reads as text, such as ``2e-4``, in what a script loads: a text of its own, or a file beside it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from kbitlint.facts.values import UNKNOWN, Span, Style
from kbitlint.runtime.content import read_text
from kbitlint.source.interpreter.objects import Constant, Entry, Object, Record

if TYPE_CHECKING:
    from pathlib import Path

#: functions of PyYAML that follow YAML 1.1, by which ``2e-4`` is a text
LOADERS = ("yaml.safe_load", "yaml.load", "yaml.full_load", "yaml.unsafe_load")
_NUMBER = re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+")
#: bytes of the longest configuration
_MOST = 100_000


def is_open_yaml(name: str, arguments: Record) -> bool:
    """Return whether a call opens a file of YAML whose name is known."""
    given = arguments.get("0")
    return name == "open" and isinstance(given, Constant) and str(given.value).endswith((".yaml", ".yml"))


def yaml_value(arguments: Record, beside: Path | None) -> Object:
    """Return what is known of the table that a script loads from a text or an open file; UNKNOWN if it loads no table.

    Args:
        arguments: The arguments of the loader.
        beside: The folder of the script; None if it is unknown.
    """
    from kbitlint.source.configs.tree import ConfigurationError, yaml_items  # few scripts load YAML

    try:
        text = _text(next((one.value for one in arguments.items.values()), UNKNOWN), beside)
        made = yaml_items(text) if text is not None else None
    except (ConfigurationError, OSError, ValueError):
        return UNKNOWN
    return UNKNOWN if made is None else _placed(made, arguments.span)


def _text(given: Object, beside: Path | None) -> str | None:
    if isinstance(given, Constant):
        return given.value if isinstance(given.value, str) and len(given.value) <= _MOST else None
    if beside is None or not isinstance(given, Record) or not is_open_yaml(given.callee, given):
        return None
    name = given.get("0")
    return read_text(beside / str(name.value), _MOST) if isinstance(name, Constant) else None


def _placed(value: Object, span: Span) -> Object:
    """Return the part of a value that YAML reads as text though it is meant as a number, with the call as its place.

    Other values stay unknown: no edit of the script could change them.
    """
    if isinstance(value, Record):
        known = {name: _placed(one.value, span) for name, one in value.items.items()}
        items = {name: Entry(one, span, span) for name, one in known.items() if one is not UNKNOWN}
        return Record(items=items, complete=False, span=span, style=Style.DICT)
    text = value.value if isinstance(value, Constant) else None
    return value if isinstance(text, str) and _NUMBER.fullmatch(text) else UNKNOWN
