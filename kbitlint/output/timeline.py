"""A step over time: which bytes live while its layers run, as points for a chart, and as a chart in text."""

from __future__ import annotations

import itertools
import math
import re
from typing import TYPE_CHECKING

from kbitlint.lazy_dataclass import dataclass
from kbitlint.output.wording import printable
from kbitlint.sizes import size

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from kbitlint.memory_result import Moment, StepMemory

#: kinds of bytes, from the bottom of a chart to its top
KINDS = ("weights and state", "activations", "logits", "gradients", "temporary")
_SIGNS = "█▓▒░·"
LIMIT = "-"
_LAYER = re.compile(r"(.*?\.)?(\d+)(?:\..*)?")
_ROWS = 8


@dataclass(frozen=True, slots=True)
class Point:
    """The bytes at one point of a step, by the kinds of ``KINDS``."""

    name: str
    phase: str
    """``forward``, ``backward`` or ``update``."""
    parts: tuple[float, ...]

    @property
    def total(self) -> float:
        """Return all bytes."""
        return sum(self.parts)


def points_of(step: StepMemory) -> list[Point]:
    """Return a point for each layer and pass of a step, in their order, and for what runs before and after the layers.

    A point has the most bytes of its moments. Layers that the step left out lie on a line between their neighbours.
    """
    groups: dict[tuple[str, str], list[Moment]] = {}
    layers: dict[tuple[str, str], tuple[str, int]] = {}
    stacks = {prefix for prefix, _ in filter(None, (_layer(moment.name) for moment in step.timeline))}
    seen: set[str] = set()
    for moment in step.timeline:
        path, comma, phase = moment.name.rpartition(", ")
        phase = phase if comma else "update"
        found = _layer(moment.name)
        if found is not None:
            key = (f"{found[0]}{found[1]}", phase)
            layers[key] = found
            seen.add(phase)
        else:
            outer = any(stack.startswith(f"{path}.") for stack in stacks) or path in ("", "the model")
            late = (phase == "forward" and (phase in seen or outer)) or (phase == "backward" and phase in seen and not outer)
            key = ("after" if late else "before", phase)
        groups.setdefault(key, []).append(moment)
    return list(_between([(layers.get(key), _point(key, groups[key])) for key in _ordered(groups)]))


def _layer(moment: str) -> tuple[str, int] | None:
    """Return (the path of its stack, the number of the layer) of a moment; None if it is outside of layers."""
    path, comma, _ = moment.rpartition(", ")
    found = _LAYER.fullmatch(path) if comma else None
    return (found[1] or "", int(found[2])) if found else None


def _ordered(groups: dict[tuple[str, str], list[Moment]]) -> Iterator[tuple[str, str]]:
    for phase in ("forward", "backward", "update"):
        mine = [key for key in groups if key[1] == phase]
        yield from (key for key in mine if key[0] == "before")
        yield from (key for key in mine if key[0] not in ("before", "after"))
        yield from (key for key in mine if key[0] == "after")


def _point(key: tuple[str, str], moments: list[Moment]) -> Point:
    most = max(moments, key=lambda moment: moment.total)
    held = most.held + most.beside
    return Point(most.name, key[1], (held, most.activations, most.logits, most.gradients, max(most.temporary, 0)))


def _between(found: list[tuple[tuple[str, int] | None, Point]]) -> Iterator[Point]:
    """Yield the points with those of the layers between two of one stack."""
    before: tuple[tuple[str, int] | None, Point] = (None, Point("", "", ()))
    for place, point in found:
        last, start = before
        if place is not None and last is not None and place[0] == last[0] and point.phase == start.phase:
            steps = abs(place[1] - last[1])
            for number in range(1, steps):
                share = number / steps
                parts = (a + share * (b - a) for a, b in zip(start.parts, point.parts, strict=True))
                layer = last[1] + round(number * (place[1] - last[1]) / steps)
                yield Point(f"{place[0]}{layer}, {point.phase}", point.phase, tuple(parts))
        yield point
        before = (place, point)


def chart(step: StepMemory, width: int, limit: int | None = None) -> Iterator[str]:
    """Yield the lines of a chart of a step: time runs to the right, and each kind of bytes has a sign.

    A line of ``LIMIT`` is the bytes that tensors may take on the card, ``limit``, if the chart reaches them.
    """
    points = points_of(step)
    if not points:
        return
    columns = _columns(points, max(width - 12, 16))
    most = max(point.total for point in columns)
    at = None if limit is None or limit > most else math.ceil(limit / most * _ROWS)
    for row in range(_ROWS, 0, -1):
        label = size(round(most * row / _ROWS)) if row in (_ROWS, _ROWS // 2) else ""
        line = "".join(_sign(point, most * (row - 0.5) / _ROWS) for point in columns)
        yield f"{label:>10} {line.replace(' ', LIMIT) if row == at else line}".rstrip()
    yield f"{'':>11}{_phases(columns)}".rstrip()
    used = [number for number in range(len(KINDS)) if any(point.parts[number] for point in columns)]
    signs = [f"{_SIGNS[number]} {printable(KINDS[number])}" for number in used]
    yield "  ".join([*signs, *([] if at is None else [f"{LIMIT} card"])])


def _columns(points: Sequence[Point], most: int) -> list[Point]:
    """Return at most so many points, each the largest of its neighbours; few points are repeated."""
    if len(points) > most:
        edges = [round(number * len(points) / most) for number in range(most + 1)]
        return [max(points[a:b], key=lambda point: point.total) for a, b in itertools.pairwise(edges) if b > a]
    times = max(1, min(most // len(points), 4))
    return [point for point in points for _ in range(times)]


def _sign(point: Point, height: float) -> str:
    """Return the sign of the kind at a height of a column."""
    below = 0.0
    for sign, part in zip(_SIGNS, point.parts, strict=True):
        below += part
        if height <= below:
            return sign
    return " "


def _phases(columns: list[Point]) -> str:
    """Return the names of the phases below the columns where they start, as far as there is room."""
    line = ""
    for phase in ("forward", "backward", "update"):
        start = next((number for number, point in enumerate(columns) if point.phase == phase), None)
        if start is not None:
            start = min(start, len(columns) - len(phase))
            line = line.ljust(start) + phase + " " if start >= len(line) else line
    return line.rstrip()
