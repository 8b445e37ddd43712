"""A promise with the figure that was measured for it: what every benchmark prints and writes."""

from __future__ import annotations

import json
import operator
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path


@dataclass(frozen=True)
class Goal:
    """One figure beside the goal it is held to."""

    what: str
    value: float
    goal: float
    unit: str = "x"
    """``x`` is a ratio of two figures of one run: the only unit that compares between machines."""
    at_least: bool = False
    """Whether the figure should be the goal or more; otherwise the goal or less."""
    noise: float = 0.0
    """How far the figure moves from run to run, as a share of it, as far as the run itself shows that."""
    of: int | None = None
    """What a count is out of."""

    @property
    def met(self) -> bool:
        """Whether the figure meets the goal."""
        return (operator.ge if self.at_least else operator.le)(self.value, self.goal)

    @property
    def measured(self) -> str:
        """The figure with its unit."""
        return self._with_unit(self.value) + (f" of {self.of:,}" if self.of is not None else "")

    @property
    def wanted(self) -> str:
        """The goal with its unit, and the side on which it is met."""
        return f"{'≥' if self.at_least else '≤'} {self._with_unit(self.goal)}"

    def _with_unit(self, value: float) -> str:
        if self.unit == "%":
            return f"{100 * value:.4g} %"
        shown = f"{value:,.0f}" if float(value).is_integer() and (self.unit != "x" or abs(value) >= 10) else f"{value:,.3g}"
        return f"{shown} {self.unit}".strip()

    def __str__(self) -> str:
        return f"{'met' if self.met else 'MISSED':<7}{self.measured:>15}  {self.wanted:<14}{self.what}"


def leave(goals: Iterable[Goal], file: Path | None = None, **measured: Any) -> int:
    """Print goals as they come, write them, and whatever else was measured; the exit code, 1 where one is missed."""
    seen = []
    for goal in goals:
        print(goal, flush=True)
        seen.append(goal)
    if file is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps({"goals": [asdict(goal) for goal in seen], **measured}, indent=1) + "\n")
    return 0 if all(goal.met for goal in seen) else 1


def read(file: Path) -> list[Goal]:
    """The goals that a benchmark wrote."""
    return [Goal(**goal) for goal in json.loads(file.read_text())["goals"]]
