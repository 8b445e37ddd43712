"""What transformers, PEFT, TRL, bitsandbytes, accelerate and torch print and raise around k-bit training, and what it means.

The tests provoke each message, or find its text in the installed library. When one of them rewords a message, change its
row in ``messages.tsv``.
"""

from __future__ import annotations

import enum
import functools
import re
from importlib.resources import files

from kbitlint.lazy_dataclass import dataclass

#: characters of a part of a message from which on it stands for the whole
_LEAST = 20


class Verdict(enum.Enum):
    """What a message says about a training."""

    HARMLESS = "harmless"
    FAULT = "a fault"
    DEPENDS = "depends on the model"


@dataclass(frozen=True, slots=True)
class Message:
    """One message of a library."""

    library: str
    sign: str
    """Its text; ``*`` stands for anything in between."""
    verdict: Verdict
    meaning: str
    rules: tuple[str, ...] = ()
    """Codes of the rules that find its cause."""
    command: str = ""
    """What tells its causes apart, or repairs it; empty if the meaning says all."""

    def matches(self, text: str) -> bool:
        """Return whether a text with single blanks holds the message."""
        pattern = ".{0,400}?".join(re.escape(part) for part in self.sign.split("*"))
        if re.search(pattern, text, re.IGNORECASE) is not None:
            return True
        return len(text) >= _LEAST and text.lower().rstrip(".… ") in self.sign.lower()


@functools.cache
def messages() -> tuple[Message, ...]:
    """Return the rows of ``messages.tsv``."""
    text = files("kbitlint.upstream").joinpath("messages.tsv").read_text(encoding="utf-8")
    rows = (line.split("\t") for line in text.splitlines()[1:])
    return tuple(
        Message(library, sign, Verdict[verdict], meaning, tuple(rules.split()), command)
        for library, sign, verdict, meaning, rules, command in rows
    )


def found_in(text: str) -> tuple[Message, ...]:
    """Return the known messages in a text, in the order of the table; line breaks and boxes around it do not matter."""
    plain = " ".join(re.sub(r"[│┃|]\s", " ", text).split())
    return tuple(message for message in messages() if message.matches(plain))
