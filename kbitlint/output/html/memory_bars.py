"""Data of the page's memory figures: one bar for each state and mode, relative to the largest peak."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kbitlint.lazy_dataclass import dataclass
from kbitlint.memory_result import KINDS
from kbitlint.output.html.step_chart import step_chart
from kbitlint.output.memory import phase_rows, phase_words, settings_words
from kbitlint.output.timeline import KINDS as KINDS_OVER_TIME
from kbitlint.sizes import size
from kbitlint.upstream.cards import WORKSPACE, on_card

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kbitlint.memory_result import MemoryResult, StateMemory
    from kbitlint.output.html.step_chart import StepChart


@dataclass(frozen=True, slots=True)
class Part:
    """One segment of a bar."""

    kind: str
    """The CSS class of the segment."""
    start: float
    """Percent of the whole bar."""
    width: float
    """Percent of the whole bar."""
    label: str
    size: str


@dataclass(frozen=True, slots=True)
class Bar:
    """The peak of one state in one mode of checkpointing, as a bar."""

    name: str
    total: str
    """The size of the peak."""
    at: str
    """The module that runs at the peak, with the pass."""
    parts: tuple[Part, ...]


_PARTS = {
    "quantized weights": ("quantized weights", "quantization state"),
    "other weights": ("norms", "embeddings and head", "other weights", "buffers", "other models"),
    "adapters": ("adapters",),
}


def budget(report: MemoryResult, now: str = "") -> dict[str, Any]:
    """Return the table and the bars of a measurement, as text.

    Args:
        report: The measurement.
        now: The present mode of checkpointing of the model; empty if it is unknown.
    """
    modes = list(dict.fromkeys(mode for state in report.states for mode in state.steps))
    most = max((step.peak for state in report.states for step in state.steps.values()), default=0)
    figures = [
        (mode, mode == now, [_bar(state, mode, most) for state in report.states if mode in state.steps]) for mode in modes
    ]
    rows: list[tuple[str, list[str]]] = []

    def row(label: str, values: list[int | None]) -> None:
        if any(values):
            rows.append((label, ["–" if value is None else size(value) for value in values]))

    for kind in KINDS:
        row(kind, [state.resident.get(kind) for state in report.states])
    row("gradients", [state.gradients if state.steps else None for state in report.states])
    row("optimizer state", [state.optimizer if state.steps else None for state in report.states])
    row("gradient buckets", [state.buckets or None for state in report.states])
    row("beside, on the host", [state.host or None for state in report.states])
    row("cuBLAS workspaces", [WORKSPACE if state.steps else None for state in report.states])
    row("logits and loss", [next((s.logits for s in state.steps.values()), None) for state in report.states])
    for title, name in (("activations", "activations"), ("peak", "peak")):
        for mode in modes:
            values = [getattr(state.steps[mode], name) if mode in state.steps else None for state in report.states]
            row(f"{title}, {mode}", values)
    for mode in modes:
        row(f"on the card, {mode}", [on_card(s.steps[mode].peak) if mode in s.steps else None for s in report.states])
    for label, value in phase_rows(report.states):
        row(label if label.startswith(" ") else f"peak, {label}", [value(state) for state in report.states])
    return {
        "report": report,
        "settings": list(settings_words(report)),
        "attached": [note for note in report.notes if note.startswith("with ")],
        "notes": [note for note in report.notes if not note.startswith("with ")],
        "figures": figures,
        "rows": rows,
        "states": [state.name for state in report.states],
        "failures": [(state.name, state.failure) for state in report.states if state.failure],
        "charts": [(mode, chart) for mode, chart in _charts(report) if chart is not None],
        "phases": next(
            ([f"{phase.name}: {phase_words(phase)}" for phase in state.phases] for state in report.states if state.steps), []
        ),
        "chart_kinds": KINDS_OVER_TIME,
        "kinds": [*_PARTS, "optimizer state", "gradients, activations and temporaries"],
    }


def _charts(report: MemoryResult) -> Iterator[tuple[str, StepChart | None]]:
    """Yield (mode, chart) of each step of the first state that was measured."""
    first = next((state for state in report.states if state.steps), None)
    if first is not None:
        yield from ((f"{first.name}, {mode}", step_chart(step)) for mode, step in first.steps.items())


def _bar(state: StateMemory, mode: str, most: int) -> Bar:
    """Return the bar of a step's peak, in percent of ``most`` bytes.

    The last segment, for temporary tensors, is the rest of the peak that no other segment explains.
    """
    step = state.steps[mode]
    spans = [(name, sum(state.resident.get(kind, 0) for kind in kinds)) for name, kinds in _PARTS.items()]
    spans.append(("optimizer state", state.optimizer))
    spans.append(("gradients, activations and temporaries", step.peak - sum(count for _, count in spans)))
    parts: list[Part] = []
    start = 0.0
    for number, (name, count) in enumerate(spans):
        if count > 0:
            width = 100 * count / most
            parts.append(Part(f"part-{number}", round(start, 3), round(width, 3), name, size(count)))
            start += width
    return Bar(state.name, size(step.peak), step.peak_at, tuple(parts))
