"""Values of a source file, and calls with their arguments: frozen, and free of ``ast``."""

from __future__ import annotations

import enum
from dataclasses import dataclass


class Unknown(enum.Enum):
    """A value that the file alone does not tell."""

    UNKNOWN = "unknown"

    def __repr__(self) -> str:
        return "UNKNOWN"


UNKNOWN = Unknown.UNKNOWN


@dataclass(frozen=True, slots=True)
class Symbol:
    """Something imported, under its full name: ``torch.bfloat16``."""

    name: str

    @property
    def last(self) -> str:
        """The last part of the name."""
        return self.name.rpartition(".")[2]


@dataclass(frozen=True, slots=True, order=True)
class Span:
    """A stretch of the text: offsets in characters, and the line it starts on."""

    start: int
    end: int
    line: int


class Style(enum.Enum):
    """How arguments are written, which decides how one is added."""

    CALL = "f(name=value)"
    DICT = '{"name": value}'
    YAML = "name: value"
    JSON = '{"name": value} of JSON'


@dataclass(frozen=True, slots=True)
class Argument:
    """A value under a name: an argument of a call, an item of a dict, a key of a configuration file."""

    name: str
    value: Value
    span: Span
    """The value."""
    whole: Span
    """The value with its name."""


@dataclass(frozen=True, slots=True)
class Call:
    """Arguments with the name of what they are for: a call, a dict, or a mapping of a configuration file."""

    callee: str
    """The full name, shortened to library and last part: ``peft.get_peft_model``; ``dict`` for a dict."""
    span: Span
    arguments: tuple[Argument, ...] = ()
    complete: bool = True
    """Whether all arguments are known: no ``**kwargs`` of unknown content."""
    style: Style = Style.CALL
    tail: int = 0
    """Where the last argument ends."""
    path: str = ""
    """For a mapping of a configuration file: its dotted key."""

    def argument(self, name: str) -> Argument | None:
        """The argument of this name, where it is given."""
        return next((argument for argument in self.arguments if argument.name == name), None)

    def value(self, name: str, unset: Value = None) -> Value:
        """The argument's value; ``unset`` where it is surely not given, UNKNOWN where that cannot be told."""
        argument = self.argument(name)
        if argument is not None:
            return argument.value
        return unset if self.complete else UNKNOWN

    def within(self, name: str) -> Call | None:
        """The argument's value where it is a call or a dict."""
        value = self.value(name)
        return value if isinstance(value, Call) else None

    def gives(self, name: str) -> bool:
        """Whether the argument is given, or may be."""
        return self.argument(name) is not None or not self.complete

    def dtype(self, name: str, unset: Value = None) -> Value:
        """A dtype argument by its short name, ``bfloat16``, whether it is written as text or as ``torch.bfloat16``."""
        return short_dtype(self.value(name, unset))


Value = None | bool | int | float | str | Symbol | Call | Unknown | tuple["Value", ...]


def short_dtype(value: Value) -> Value:
    """``bfloat16`` for ``torch.bfloat16``, ``"bfloat16"`` and ``"torch.bfloat16"``; other values as they are."""
    if isinstance(value, Symbol):
        return (
            {"half": "float16", "float": "float32"}.get(value.last, value.last) if value.name.startswith("torch.") else UNKNOWN
        )
    return value.removeprefix("torch.") if isinstance(value, str) else value


@dataclass(frozen=True, slots=True)
class Ignore:
    """One comment: which rules it silences, and on which lines."""

    names: tuple[str, ...]
    """Codes, prefixes or slugs; empty where it names none, and silences nothing."""
    first: int
    last: int
    """The lines it holds for, 1-based."""
    start: int
    end: int
    """Where the comment stands in the text."""
    line: int

    def names_rule(self, code: str, slug: str) -> bool:
        """Return whether the comment is about a rule."""
        return any(code.startswith(name.upper()) or name.lower() == slug for name in self.names)
