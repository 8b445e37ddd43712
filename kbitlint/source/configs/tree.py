"""JSON and YAML texts as the values of a script, each with its place in the text.

This file parses. ``collect.py`` interprets the keys.
"""

from __future__ import annotations

import bisect
from typing import TYPE_CHECKING, Any

from kbitlint.facts.values import Span, Style, Value
from kbitlint.files.json_text import JSONTextError, TooManyValues
from kbitlint.files.json_text import Node as JSONNode
from kbitlint.files.json_text import parse as parse_json
from kbitlint.source.interpreter.objects import Constant, Entry, Object, Record, Sequence

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

#: Most nodes of a file, with an alias counted each time. A training configuration has a few hundred.
MAX_NODES = 20_000
MAX_DEPTH = 40
_TOO_MUCH = "holds more, or deeper, than a training configuration does"


class ConfigurationError(ValueError):
    """A configuration text that is invalid or too large; the message contains the reason."""


def json_items(text: str) -> Record | None:
    """Return the table of a JSON text; None if its top level is no table.

    Raises:
        ConfigurationError: The text is no JSON, has more than ``MAX_NODES`` values, or is nested too deeply.
    """
    try:
        node = parse_json(text, most=MAX_NODES)
    except TooManyValues as error:
        raise ConfigurationError(_TOO_MUCH) from error
    except (JSONTextError, RecursionError) as error:
        raise ConfigurationError(f"is not valid JSON: {error}") from error
    lines = Lines(text)
    value = _json_value(node, lines)
    return value if isinstance(value, Record) else None


def _json_value(node: JSONNode, lines: Lines) -> Object:
    if isinstance(node.value, list):
        return Sequence([_json_value(item, lines) for item in node.value], lines.span(node.start, node.end))
    if not isinstance(node.value, dict):
        return Constant(node.value)
    made = Record(span=lines.span(node.start, node.end), style=Style.JSON)
    starts = dict(node.keys)
    for name, member in node.value.items():
        span = lines.span(member.start, member.end)
        made.items[name] = Entry(_json_value(member, lines), span, lines.span(starts[name], member.end))
        made.tail = max(made.tail, member.end)
    return made


def yaml_items(text: str) -> Record | None:
    """Return the table of a YAML text; None if its top level is no table.

    Raises:
        ConfigurationError: The text is no YAML, has more than ``MAX_NODES`` nodes, or is nested deeper than ``MAX_DEPTH``.
    """
    import yaml  # only a YAML file needs it

    loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        # nodes take more memory than characters, and deep ones more time: count their events before composing them
        too_many = len(text) > MAX_NODES and _too_many(yaml.parse(text, Loader=loader))
        node = None if too_many else yaml.compose(text, Loader=loader)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f" (line {mark.line + 1}, column {mark.column + 1})" if mark is not None else ""
        problem = getattr(error, "problem", None) or "it cannot be read"
        raise ConfigurationError(f"is not valid YAML: {problem}{where}") from error
    if too_many:
        raise ConfigurationError(_TOO_MUCH)
    if node is None:
        return None
    reader = _YAML(text, loader)
    value = reader.value(node, 0)
    return value if isinstance(value, Record) else None


def _too_many(events: Iterable[Any]) -> bool:
    """Return whether the events of a YAML text make more nodes, or deeper ones, than the limits allow."""
    depth = 0
    for number, event in enumerate(events):
        name = type(event).__name__
        depth += name.endswith("StartEvent") - name.endswith("EndEvent")
        if number > 3 * MAX_NODES or depth > MAX_DEPTH + 2:  # the stream and the document add a level each
            return True
    return False


class Lines:
    """The line number of each offset of a text."""

    def __init__(self, text: str) -> None:
        self._find: Callable[[list[int], int], int] = bisect.bisect_right
        self._starts = [0, *(index + 1 for index, character in enumerate(text) if character == "\n")]

    def span(self, start: int, end: int) -> Span:
        """Return the span between two offsets."""
        return Span(start, end, self._find(self._starts, start))


class _YAML:
    """PyYAML nodes as values; an alias counts as often as the text uses it, up to ``MAX_NODES``."""

    def __init__(self, text: str, loader: Any) -> None:
        self._text = text
        self._lines = Lines(text)
        self._scalar: Callable[[Any], Any] = loader("").construct_object
        self._left = MAX_NODES
        self._spans: dict[int, Span] = {}
        """The place of each node, by its id: an alias is the same node again."""

    def value(self, node: Any, depth: int) -> Object:
        self._left -= 1
        if self._left < 0 or depth > MAX_DEPTH:
            raise ConfigurationError(_TOO_MUCH)
        kind = node.id
        if kind == "sequence":
            return Sequence([self.value(item, depth + 1) for item in node.value], self._span(node))
        if kind != "mapping":
            return self._known(node)
        made = Record(span=self._span(node), style=Style.JSON if node.flow_style else Style.YAML)
        for key, item in node.value:
            name = str(getattr(key, "value", ""))
            span = self._span(item)
            whole = self._lines.span(self._start(key), span.end)
            made.items[name] = Entry(self.value(item, depth + 1), span, whole)
            made.tail = max(made.tail, span.end)
        return made

    def _known(self, node: Any) -> Object:
        try:
            value: Value = self._scalar(node)
        except Exception:  # noqa: BLE001  # dates and numbers out of range raise many types of errors
            return Constant(str(node.value))
        return Constant(value) if value is None or isinstance(value, (bool, int, float, str)) else Constant(str(node.value))

    def _start(self, node: Any) -> int:
        return int(node.start_mark.index)

    def _span(self, node: Any) -> Span:
        known = self._spans.get(id(node))
        if known is None:
            start, end = self._start(node), int(node.end_mark.index)
            while end > start and self._text[end - 1].isspace():  # PyYAML ends a block at the start of the next one
                end -= 1
            known = self._spans[id(node)] = self._lines.span(start, end)
        return known
