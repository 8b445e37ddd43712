"""Values of a source file, and calls with their arguments.

Every value is frozen. This module imports no ``ast``.
"""

from __future__ import annotations

import enum
import re

from kbitlint.lazy_dataclass import dataclass


class Unknown(enum.Enum):
    """The value of an expression that the file alone does not determine."""

    UNKNOWN = "unknown"

    def __repr__(self) -> str:
        return "UNKNOWN"


UNKNOWN = Unknown.UNKNOWN
#: the callee of an assignment to a key of a quantization config that a checkpoint stores
STORED = "stored.quantization_config"


@dataclass(frozen=True, slots=True)
class Symbol:
    """An imported object under its full name: ``torch.bfloat16``."""

    name: str

    @property
    def last(self) -> str:
        """Return the last part of the name."""
        return self.name.rpartition(".")[2]


def last_name(value: Value) -> Value:
    """Return the last part of a symbol's name, and any other value as it is: ``TaskType.SEQ_CLS`` is ``"SEQ_CLS"``."""
    return value.last if isinstance(value, Symbol) else value


#: a text whose content the file does not tell: an environment variable, or an option of the command line without a type
TEXT = Symbol("builtins.str")
#: a function of the file
FUNCTION = Symbol("builtins.function")


@dataclass(frozen=True, slots=True, order=True)
class Span:
    """A range of the text: start and end offset in characters, and the line of the start."""

    start: int
    end: int
    line: int


class Style(enum.Enum):
    """The syntax of the arguments. It decides how an edit adds one."""

    CALL = "f(name=value)"
    DICT = '{"name": value}'
    YAML = "name: value"
    JSON = '{"name": value} of JSON'


@dataclass(frozen=True, slots=True)
class Argument:
    """A named value: an argument of a call, an item of a dict, or a key of a configuration file."""

    name: str
    value: Value
    span: Span
    """The span of the value."""
    whole: Span
    """The span of name and value."""


@dataclass(frozen=True, slots=True)
class Call:
    """A callee with its arguments: a call, a dict, or a mapping of a configuration file."""

    callee: str
    """The full name, shortened to library and last part: ``peft.get_peft_model``. For a dict: ``dict``."""
    span: Span
    arguments: tuple[Argument, ...] = ()
    complete: bool = True
    """Whether all arguments are known. False if the call unpacks ``**kwargs`` of unknown content."""
    style: Style = Style.CALL
    tail: int = 0
    """The offset at which the last argument ends; 0 if there is none."""
    path: str = ""
    """The dotted key of a mapping of a configuration file; empty for a call."""

    def argument(self, name: str) -> Argument | None:
        """Return the argument of this name; None if the call does not pass it."""
        return next((argument for argument in self.arguments if argument.name == name), None)

    def value(self, name: str, unset: Value = None) -> Value:
        """Return an argument's value; UNKNOWN if the call may pass the argument, with a value that is not known.

        Args:
            name: The name of the argument.
            unset: The result if the call certainly does not pass the argument.
        """
        argument = self.argument(name)
        if argument is not None:
            return argument.value
        return unset if self.complete else UNKNOWN

    def within(self, name: str) -> Call | None:
        """Return an argument's value if it is a call or a dict, else None."""
        value = self.value(name)
        return value if isinstance(value, Call) else None

    def gives(self, name: str) -> bool:
        """Return whether the call passes the argument, or may pass it."""
        return self.argument(name) is not None or not self.complete

    def dtype(self, name: str, unset: Value = None) -> Value:
        """Return a dtype argument by its short name, ``bfloat16``, for a string as well as for ``torch.bfloat16``."""
        return short_dtype(self.value(name, unset))


Value = None | bool | int | float | str | Symbol | Call | Unknown | tuple["Value", ...]


def short_dtype(value: Value) -> Value:
    """Return ``bfloat16`` for ``torch.bfloat16``, ``"bfloat16"`` and ``"torch.bfloat16"``.

    A symbol outside torch becomes UNKNOWN. Other values are returned unchanged.
    """
    if isinstance(value, Symbol):
        return (
            {"half": "float16", "float": "float32"}.get(value.last, value.last) if value.name.startswith("torch.") else UNKNOWN
        )
    return value.removeprefix("torch.") if isinstance(value, str) else value


@dataclass(frozen=True, slots=True)
class Ignore:
    """One comment that suppresses rules, with the lines for which it holds."""

    names: tuple[str, ...]
    """Codes, prefixes or slugs. Empty if the comment names no rule; it then suppresses every one."""
    first: int
    """The first line for which the comment holds, 1-based."""
    last: int
    """The last line for which the comment holds, 1-based."""
    start: int
    """The offset in the text at which the comment starts."""
    end: int
    """The offset at which the comment ends."""
    line: int
    """The line of the comment, 1-based."""
    silences: tuple[str, ...] = ()
    """For a comment that names no rule: the codes that it suppresses; filled after the other rules have run."""

    def naming(self, text: str, codes: str) -> tuple[Span, str]:
        """Return the place in the text, and what is written there, so that the comment also names these rules."""
        comment = text[self.start : self.end]
        if self.names:
            end = self.start + comment.index("]")
            return Span(end, end, self.line), f", {codes}"
        word = comment.index("ignore") + len("ignore")
        stale = re.match(r"\[[^\]\n]*\]", comment[word:])  # brackets without a name
        start = self.start + word
        return Span(start, start + (stale.end() if stale else 0), self.line), f"[{codes}]"

    def names_rule(self, code: str, slug: str) -> bool:
        """Return whether the comment names a rule, or all of them."""
        return not self.names or any(code.startswith(name.upper()) or name.lower() == slug for name in self.names)
