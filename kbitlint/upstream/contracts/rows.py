"""The rows of all libraries: which combinations of arguments a constructor refuses, and which it ignores."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from kbitlint.upstream.contracts.conditions import Subject, names, truth
from kbitlint.upstream.contracts.defaults import DEFAULTS
from kbitlint.upstream.versions import number

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from kbitlint.facts.model_state import ModelState
    from kbitlint.facts.values import Argument, Call


@dataclass(frozen=True, slots=True)
class Contract:
    """One combination of arguments that a library refuses or ignores."""

    callees: tuple[str, ...]
    """The full names of the functions and classes, or patterns of them."""
    when: str
    """The condition; ``conditions.py`` describes its language."""
    message: str
    """The library's own message, shortened to the part without values."""
    raises: str = "ValueError"
    """The exception; empty if the library ignores ``drops``."""
    drops: str = ""
    """The argument that is ignored, or whose removal lifts the refusal; empty if there is no single one."""
    moment: str = ""
    """When the exception is raised, if not by the call itself: ``when it is attached``, ``when the model is loaded``."""
    example: str = ""
    """The arguments of a call for which the condition holds, as code."""
    since: str = ""
    """The first version with this behaviour; empty for any."""
    until: str = ""
    """The first version without it; empty if there is none."""

    def concerns(self, callee: str) -> bool:
        """Return whether the row is about a function or class."""
        return any(fnmatchcase(callee, name) for name in self.callees)

    def holds_for(self, version: str) -> bool:
        """Return whether a version of the library behaves so; an unknown version counts as the newest."""
        have = number(version) or (10**6,)
        return (not self.since or have >= number(self.since)) and (not self.until or have < number(self.until))

    def at(self, call: Call) -> Argument | None:
        """Return the argument of a call to which a report points; None if the call passes none that the row names."""
        given = (call.argument(name) for name in (self.drops, *names(self.when)) if name)
        return next((argument for argument in given if argument is not None), None)


#: library or program -> module with its rows; each is imported when a file uses the library
_TABLES = {
    "peft": "peft",
    "transformers": "transformers",
    "trl": "trl",
    "unsloth": "unsloth",
    "axolotl": "axolotl",
    "llamafactory": "llamafactory",
    "swift": "swift",
}


def rows_of(library: str) -> tuple[Contract, ...]:
    """Return the rows of a library; an empty tuple if none are known."""
    if library not in _TABLES:
        return ()
    module = importlib.import_module(f"kbitlint.upstream.contracts.{_TABLES[library]}")
    rows: tuple[Contract, ...] = module.ROWS
    return rows


def broken(call: Call, versions: Mapping[str, str], model: ModelState | None = None) -> Iterator[Contract]:
    """Yield each row whose condition certainly holds for a call.

    Args:
        call: The call.
        versions: The versions of the libraries.
        model: The state of the model that the call receives, before the call. None if it is not known.
    """
    subject = Subject(call, DEFAULTS, model)
    own = call.callee.partition(".")[0]
    for library in (own, "transformers") if own == "trl" else (own,):  # TRL's classes extend those of transformers
        for row in rows_of(library):
            if row.concerns(call.callee) and row.holds_for(versions.get(library, "")) and truth(row.when, subject):
                yield row
