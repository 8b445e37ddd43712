"""Data of the page's chart of a step: one area for each kind of bytes, and the batches that a card takes as a map."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kbitlint.lazy_dataclass import dataclass
from kbitlint.output.timeline import KINDS, points_of
from kbitlint.sizes import size
from kbitlint.upstream.cards import smallest

if TYPE_CHECKING:
    from kbitlint.fit_result import FitResult
    from kbitlint.memory_result import StepMemory
    from kbitlint.output.timeline import Point

#: the size of the chart's drawing; the page stretches it
WIDTH, HEIGHT = 1000, 220


@dataclass(frozen=True, slots=True)
class Area:
    """One kind of bytes over time."""

    kind: str
    label: str
    points: str
    """The corners of its polygon."""
    most: str
    """Its largest size."""


@dataclass(frozen=True, slots=True)
class StepChart:
    """A step over time."""

    areas: tuple[Area, ...]
    phases: tuple[tuple[str, float], ...]
    """(name, where it starts in percent)."""
    peak: str
    at: str
    top: str
    """The size at the top of the chart."""
    limit: float | None
    """The height of the card's limit from the top, in percent; None if there is none or it is above the chart."""


@dataclass(frozen=True, slots=True)
class Cell:
    """One batch in the map."""

    card: str
    """The smallest card, in GB as on its box."""
    nbytes: str
    fits: bool
    """Whether the card that was asked about takes it."""


def step_chart(step: StepMemory, total: int | None = None) -> StepChart | None:
    """Return the chart of a step; None if the step has no timeline. ``total`` are the bytes that tensors may take."""
    points = points_of(step)
    if len(points) < 2:
        return None
    most = max(point.total for point in points) * 1.05
    most = max(most, total * 1.05) if total is not None and total < 2 * most else most
    areas = []
    for number, label in enumerate(KINDS):
        largest = max(point.parts[number] for point in points)
        if largest > 0:
            areas.append(Area(f"part-{number}", label, _polygon(points, number, most), size(round(largest))))
    last = len(points) - 1
    starts = {point.phase: 100 * number / last for number, point in reversed(list(enumerate(points)))}
    limit = None if total is None or total > most else round(100 - 100 * total / most, 2)
    return StepChart(
        tuple(areas),
        tuple((phase, round(start, 2)) for phase, start in sorted(starts.items(), key=lambda item: item[1])),
        size(step.peak),
        step.peak_at,
        size(round(most)),
        limit,
    )


def _polygon(points: list[Point], number: int, most: float) -> str:
    """Return the corners of the area of one kind: its upper edge to the right, and its lower edge back."""
    last = len(points) - 1

    def corner(place: int, below: float) -> str:
        return f"{WIDTH * place / last:.1f},{HEIGHT - HEIGHT * max(below, 0) / most:.1f}"

    upper = [corner(place, sum(point.parts[: number + 1])) for place, point in enumerate(points)]
    lower = [corner(place, sum(point.parts[:number])) for place, point in enumerate(points)]
    return " ".join([*upper, *reversed(lower)])


def map_of(report: FitResult) -> list[tuple[int, list[Cell]]]:
    """Return the rows of the map: (sequences, cells)."""
    if report.grid is None:
        return []
    rows = []
    for batch, counts in zip(report.grid.batches, report.grid.on_card, strict=True):
        cells = [(smallest(count), count) for count in counts]
        rows.append((batch, [Cell("–" if card is None else str(card), size(n), n <= report.total) for card, n in cells]))
    return rows
