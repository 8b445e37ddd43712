"""What a failed forward tells about its batch: the message, the line that raised, and the arguments that were missing there."""

from __future__ import annotations

import linecache
import re
import traceback
from pathlib import Path
from typing import TYPE_CHECKING

from kbitlint.lazy_dataclass import dataclass

if TYPE_CHECKING:
    from collections.abc import Collection

#: Frames from the innermost one outwards in which a missing argument is looked for.
_NEAR = 16


#: Messages about a last dimension: of a product on the CPU and on meta, and of a norm.
_WIDTHS = (
    re.compile(r"multiplied \(\d+x(?P<had>\d+) and (?P<wanted>\d+)x\d+\)"),
    re.compile(r"reduction dim, but got \[[\d, ]*?(?P<had>\d+)\] X \[[\d, ]*?(?P<wanted>\d+), \d+\]"),
    re.compile(r"normalized_shape=\[(?P<wanted>\d+)\].*?size ?(?:torch.Size)?\(?\[[\d, ]*?(?P<had>\d+)\]"),
)


@dataclass(frozen=True, slots=True)
class Failure:
    """A forward that raised."""

    kind: str
    """The name of the exception's class."""
    message: str
    absent: tuple[str, ...]
    """Arguments that were None near the line that raised: those that the line names first."""
    line: str
    """The line that raised, or that called the operator that did."""
    in_loss: bool
    """Whether the loss raised, or the model said that it computes none."""

    @property
    def words(self) -> tuple[str, ...]:
        """The words of the message, each once."""
        return tuple(dict.fromkeys(re.findall(r"\w+", self.message)))

    @property
    def widths(self) -> tuple[int, int] | None:
        """The last dimension that an input of a linear layer or a norm had, and the one that it takes. None in other cases."""
        found = next((match for pattern in _WIDTHS if (match := pattern.search(self.message))), None)
        return None if found is None else (int(found["had"]), int(found["wanted"]))

    @property
    def numbers(self) -> tuple[int, ...]:
        """The numbers in the message, in their order."""
        return tuple(int(number) for number in re.findall(r"\d+", self.message))


_NO_LOSS = re.compile(
    r"Loss\(\)|raining is not|training (is )?not|not support training|not trainable|no labels|\btarget\b"
    r"|labels? (should|must)|BCE|"
    r"requires the scipy|is not yet? (implemented|supported)|not implemented for '(Long|Bool)'",
    re.IGNORECASE,
)

#: The folder of this package, whose modes run between those of a model.
_PACKAGE = str(Path(__file__).parents[2])
#: Files below the code of a model: the modes of a trace, and torch.
_OURS = re.compile(r"[/\\\\](kbitlint|torch)[/\\\\]")


def failure_of(error: BaseException, arguments: Collection[str]) -> Failure:
    """Return what an exception of a forward tells.

    Args:
        error: The exception.
        arguments: The names of the forward's arguments.
    """
    frames = list(traceback.walk_tb(error.__traceback__))
    absent: dict[str, None] = {}
    later: dict[str, None] = {}
    near = [(frame, line) for frame, line in frames if not frame.f_code.co_filename.startswith(_PACKAGE)][-_NEAR:]
    for frame, line in reversed(near):
        none = [name for name, value in frame.f_locals.items() if value is None and name in arguments]
        text = linecache.getline(frame.f_code.co_filename, line)
        named = [name for name in none if re.search(rf"\b{name}\b", text)]
        absent |= dict.fromkeys(named)
        later |= dict.fromkeys(none)
    functions = [frame.f_code.co_name for frame, _ in frames]
    in_loss = any("loss" in name.lower() for name in functions) or bool(_NO_LOSS.search(str(error)))
    own = [(frame, line) for frame, line in frames if not _OURS.search(frame.f_code.co_filename)]
    raised = linecache.getline(own[-1][0].f_code.co_filename, own[-1][1]) if own else ""
    return Failure(type(error).__name__, str(error), tuple(absent | later), raised, in_loss)
