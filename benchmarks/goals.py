"""Goals, each with its measured figure: the result that every benchmark prints and writes."""

from __future__ import annotations

import json
import operator
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path


@dataclass(frozen=True)
class Goal:
    """A measured figure and the goal for it."""

    what: str
    value: float
    goal: float
    unit: str = "x"
    """``x`` is a ratio of two figures of one run, the only unit that is comparable between machines."""
    at_least: bool = False
    """Whether the figure must reach the goal. False means that it must not exceed the goal."""
    noise: float = 0.0
    """The variation between repetitions of the measurement, as a share of the figure. 0 if it is not measured."""
    of: int | None = None
    """The total of which the figure is a count. None if it is no count."""

    @property
    def met(self) -> bool:
        """Return whether the figure meets the goal."""
        return (operator.ge if self.at_least else operator.le)(self.value, self.goal)

    @property
    def measured(self) -> str:
        """Return the figure with its unit."""
        return self._with_unit(self.value) + (f" of {self.of:,}" if self.of is not None else "")

    @property
    def wanted(self) -> str:
        """Return the goal with its unit and the direction in which it is met."""
        return f"{'≥' if self.at_least else '≤'} {self._with_unit(self.goal)}"

    def _with_unit(self, value: float) -> str:
        if self.unit == "%":
            return f"{100 * value:.4g} %"
        shown = f"{value:,.0f}" if float(value).is_integer() and (self.unit != "x" or abs(value) >= 10) else f"{value:,.3g}"
        return f"{shown} {self.unit}".strip()

    def __str__(self) -> str:
        return f"{'met' if self.met else 'MISSED':<7}{self.measured:>15}  {self.wanted:<14}{self.what}"


def leave(goals: Iterable[Goal], file: Path | None = None, **measured: Any) -> int:
    """Print each goal when it is measured, and write all to ``file``, with further measurements.

    Return the exit code: 1 if a goal is missed, otherwise 0.
    """
    seen = []
    for goal in goals:
        print(goal, flush=True)
        seen.append(goal)
    if file is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps({"goals": [asdict(goal) for goal in seen], **measured}, indent=1) + "\n")
    return 0 if all(goal.met for goal in seen) else 1


def read(file: Path) -> list[Goal]:
    """Return the goals that a benchmark wrote to a file."""
    return [Goal(**goal) for goal in json.loads(file.read_text())["goals"]]


class Kept:
    """Figures of a long part by name, in a file from which a stopped run goes on.

    Args:
        file: The file, one JSON object a line.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        lines = file.read_text().splitlines() if file.exists() else []
        self._known: dict[str, Any] = dict(json.loads(line) for line in lines)

    def get(self, name: str, measure: Callable[[], Any]) -> Any:
        """Return the figure of a name; measure it and add it to the file if it is not there."""
        if name not in self._known:
            self._known[name] = measure()
            with self.file.open("a") as file:
                file.write(json.dumps([name, self._known[name]]) + "\n")
        return self._known[name]
