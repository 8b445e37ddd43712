"""The rows of all libraries: which combinations of arguments a constructor refuses, and which it ignores."""

from __future__ import annotations

import functools
import importlib
from typing import TYPE_CHECKING

from kbitlint.facts.values import Call, Style
from kbitlint.lazy_dataclass import dataclass
from kbitlint.upstream.contracts.conditions import attributes, names, truth
from kbitlint.upstream.contracts.defaults import DEFAULTS
from kbitlint.upstream.contracts.subject import Subject
from kbitlint.upstream.versions import number

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from kbitlint.facts.model_state import ModelState
    from kbitlint.facts.values import Argument, Value


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
    """The exception; empty if the library ignores ``drops``, or only warns where it is empty."""
    drops: str = ""
    """The argument that is ignored, or whose removal lifts the refusal; empty if there is no single one.

    ``args.model_init_kwargs`` is an argument of the call that is an argument.
    """
    moment: str = ""
    """When the exception is raised, if not by the call itself: ``when it is attached``, ``when the model is loaded``."""
    example: str = ""
    """The arguments of a call for which the condition holds, as code."""
    since: str = ""
    """The first version with this behaviour; empty for any."""
    until: str = ""
    """The first version without it; empty if there is none."""
    python: bool = False
    """Whether only a call in Python breaks it: programs convert the texts of their configurations."""
    unset: bool = False
    """Whether the condition holds if a call passes none of its arguments."""

    def concerns(self, callee: str) -> bool:
        """Return whether the row is about a function or class."""
        return any(_fits(name, callee) for name in self.callees)

    def holds_for(self, version: str) -> bool:
        """Return whether a version of the library behaves so; an unknown version counts as the newest."""
        have = number(version) or (10**6,)
        return (not self.since or have >= number(self.since)) and (not self.until or have < number(self.until))

    def at(self, call: Call) -> Argument | None:
        """Return the argument of a call to which a report points; None if the call passes none that the row names."""
        said = sorted(names(self.when), key=lambda name: name == "model")  # often its state, which no argument shows
        given = (call.argument(name) for name in said)
        return self.dropped(call) or self._inner(call) or next((argument for argument in given if argument is not None), None)

    def _inner(self, call: Call) -> Argument | None:
        """Return the argument of an argument that the condition names, if it names one kind only: ``args.bf16``."""
        inner = dict.fromkeys(attributes(self.when))
        if len({owner for owner, _ in inner}) != 1 or len([name for name in names(self.when) if name != "model"]) != 1:
            return None
        made = ((call.argument(owner), name) for owner, name in inner)
        calls = ((one.value, name) for one, name in made if one is not None and isinstance(one.value, Call))
        return next((found for value, name in calls if (found := value.argument(name)) is not None), None)

    def dropped(self, call: Call) -> Argument | None:
        """Return the argument of ``drops``, or the one around it if the call does not show it; None without either."""
        found: Argument | None = None
        inner: Value = call
        for name in filter(None, self.drops.split(".")):
            one = inner.argument(name) if isinstance(inner, Call) else None
            if one is None:
                break
            found, inner = one, one.value
        return found


def _fits(name: str, callee: str) -> bool:
    """Return whether a full name, or one with a ``*`` in it, is that of a callee."""
    start, star, end = name.partition("*")
    return callee == name or (bool(star) and callee.startswith(start) and callee.endswith(end))


def _touches(call: Call, condition: str) -> bool:
    """Return whether a call may pass an argument that a condition names: most rows need no evaluation."""
    if not call.complete or "model." in condition:
        return True
    for argument in call.arguments:
        name, value = argument.name, argument.value
        plain = any(f"{name}{sign}" in condition for sign in (" ", ")", ",")) or condition.endswith(name)
        known = isinstance(value, Call) and value.complete
        inner = [f"{name}.{one.name}" for one in value.arguments] if isinstance(value, Call) and known else [f"{name}."]
        if plain or any(one in condition for one in inner):
            return True
    return False


#: library or program -> module with its rows; each is imported when a file uses the library
_TABLES = {
    "peft": "peft",
    "transformers": "transformers",
    "trl": "trl",
    "torch": "optimizers",
    "bitsandbytes": "optimizers",
    "unsloth": "unsloth",
    "axolotl": "axolotl",
    "llamafactory": "llamafactory",
    "swift": "swift",
    "diffusers": "diffusers",
    "lightning": "lightning",
    "litgpt": "litgpt",
}


def rows_of(library: str) -> tuple[Contract, ...]:
    """Return the rows of a library; an empty tuple if none are known."""
    if library not in _TABLES:
        return ()
    module = importlib.import_module(f"kbitlint.upstream.contracts.{_TABLES[library]}")
    rows: tuple[Contract, ...] = module.ROWS
    return rows


def broken(
    call: Call, versions: Mapping[str, str], model: ModelState | None = None, processes: int | None = None
) -> Iterator[Contract]:
    """Yield each row whose condition certainly holds for a call.

    Args:
        call: The call.
        versions: The versions of the libraries.
        model: The state of the model that the call receives, before the call. None if it is not known.
        processes: The number of processes of the run; None if it is not known.
    """
    subject = Subject(call, DEFAULTS, model, processes)
    own = call.callee.partition(".")[0] if "." in call.callee else "peft"  # a method that both libraries name alike
    # TRL's classes extend those of transformers, and PEFT's wrap them
    for library in (own, "transformers") if own in ("trl", "peft") else (own,):
        for row in _rows_about(library, call.callee, versions.get(library, "")):
            if not (row.unset or _touches(call, row.when)) or (row.python and call.style is not Style.CALL):
                continue
            if truth(row.when, subject):
                yield row


@functools.lru_cache(maxsize=1_024)
def _rows_about(library: str, callee: str, version: str) -> tuple[Contract, ...]:
    """Return the rows about a function or class that hold for a version; a file calls the same few often."""
    return tuple(row for row in rows_of(library) if row.concerns(callee) and row.holds_for(version))
