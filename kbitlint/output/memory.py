"""The memory of a training step as text (a table with bars, 80 columns) and as JSON."""

from __future__ import annotations

import dataclasses
import textwrap
from typing import TYPE_CHECKING, Any

from kbitlint.memory_result import KINDS, ON
from kbitlint.output.json import dumped
from kbitlint.output.timeline import chart
from kbitlint.output.wording import header, printable, wrapped
from kbitlint.sizes import size
from kbitlint.step_plan import SAID
from kbitlint.upstream.cards import WORKSPACE, on_card

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from kbitlint.memory_result import MemoryResult, Moment, Phase, StateMemory

VERSION = 1
_LABEL = 24
_BLOCKS = " ▏▎▍▌▋▊▉"


def render_json(report: MemoryResult) -> str:
    """Return the report as one JSON document with sorted keys; all sizes are bytes."""
    states = [
        {
            "name": state.name,
            "resident": dict(state.resident),
            "gradients": state.gradients,
            "optimizer": state.optimizer,
            "steps": {
                mode: {
                    "activations": step.activations,
                    "logits": step.logits,
                    "peak": step.peak,
                    "peak_at": step.peak_at,
                    "on_card": on_card(step.peak),
                    "timeline": [_moment(moment) for moment in step.timeline],
                }
                for mode, step in state.steps.items()
            },
            "host": state.host,
            "buckets": state.buckets,
            "phases": [dataclasses.asdict(phase) for phase in state.phases],
            "failure": state.failure,
        }
        for state in report.states
    ]
    record: dict[str, Any] = {
        "version": VERSION,
        "target": report.target,
        "summary": report.summary,
        "notes": list(report.notes),
        "batch_size": report.batch[0],
        "seq_len": report.batch[1],
        "optimizer": report.plan.optimizer,
        "accumulation": report.plan.accumulation,
        "loss": report.plan.loss.value,
        "attention": report.plan.attention,
        "workspaces": WORKSPACE,
        "launch": report.launch,
        "autocast": report.autocast,
        "states": states,
    }
    return dumped(record)


def _moment(moment: Moment) -> dict[str, Any]:
    return {
        "name": moment.name,
        "total": moment.total,
        "held": moment.held,
        "activations": moment.activations,
        "logits": moment.logits,
        "gradients": moment.gradients,
        "gathered": moment.beside,
    }


def render_text(report: MemoryResult, *, color: bool = False, width: int = 80) -> str:
    """Return the report as a table and bars.

    The table has a column for each state. Each state has one bar for its peak. ``width`` is in columns.
    """
    batch = "your batch" if report.own_batch else "{} x {} tokens".format(*report.batch)
    lines = [*header(report.target, [report.summary, *report.notes], width)]
    lines += ["", *wrapped(f"one step of {batch}, {', '.join(settings_words(report))}", width, ""), ""]
    lines += _table(report.states, width)
    lines += ["", *_bars(report.states, width, color=color)]
    first = next((state for state in report.states if state.steps), None)
    if first is not None:
        mode = ON if ON in first.steps else next(iter(first.steps))
        lines += ["", f"the step {first.name}, {mode}, layer by layer", *chart(first.steps[mode], width)]
    if first is not None and first.phases:
        lines += ["", f"beside the steps {first.name}"]
        lines += [line for phase in first.phases for line in wrapped(f"{phase.name}: {phase_words(phase)}", width, "  ")]
    for state in report.states:
        if state.failure:
            lines += ["", *wrapped(f"{state.name}: not measured: {state.failure}", width, "")]
    return "\n".join(lines)


def settings_words(report: MemoryResult) -> Iterator[str]:
    """Yield the settings of the step in words."""
    plan = report.plan
    if report.launch:
        yield report.launch
    yield plan.optimizer
    if report.autocast:
        yield f"{report.autocast} autocast"
    if plan.accumulation > 1:
        yield f"{plan.accumulation} batches accumulated"
    if plan.attention:
        yield f"{plan.attention} attention"
    yield SAID[plan.loss]


def _table(states: tuple[StateMemory, ...], width: int) -> Iterator[str]:
    column = (width - _LABEL) // len(states)
    names = [textwrap.wrap(state.name, column - 1) for state in states]
    for line in range(max(map(len, names))):
        yield " " * _LABEL + "".join(f"{' '.join(name[line : line + 1]):>{column}}" for name in names).rstrip()

    def row(label: str, value: Callable[[StateMemory], int | None]) -> Iterator[str]:
        values = [value(state) for state in states]
        if any(values):
            cells = ["-" if number is None else size(number) for number in values]
            yield f"{label:<{_LABEL}}" + "".join(f"{cell:>{column}}" for cell in cells)

    for kind in KINDS:
        yield from row(kind, lambda state, kind=kind: state.resident.get(kind))  # type: ignore[misc]  # bound early
    yield from row("gradients", lambda state: None if not state.steps else state.gradients)
    yield from row("optimizer state", lambda state: None if not state.steps else state.optimizer)
    yield from row("gradient buckets", lambda state: state.buckets)
    yield from row("  beside, on the host", lambda state: state.host or None)
    yield from row("cuBLAS workspaces", lambda state: WORKSPACE if state.steps else None)
    yield from row("logits and loss", lambda state: next((step.logits for step in state.steps.values()), None))
    yield "activations"
    for mode in _modes(states):
        yield from row(f"  {mode}", lambda state, mode=mode: _of(state, mode, "activations"))  # type: ignore[misc]  # bound early
    yield "peak"
    for mode in _modes(states):
        yield from row(f"  {mode}", lambda state, mode=mode: _of(state, mode, "peak"))  # type: ignore[misc]  # bound early
    yield "on the card, with CUDA's context and what torch reserves"
    for mode in _modes(states):
        yield from row(f"  {mode}", lambda state, mode=mode: _on_card(state, mode))  # type: ignore[misc]  # bound early
    phases = list(phase_rows(states))
    if phases:
        yield "peak beside the steps"
    for label, value in phases:
        yield from row(f"  {label}", value)


def phase_rows(states: tuple[StateMemory, ...]) -> Iterator[tuple[str, Callable[[StateMemory], int | None]]]:
    """Yield (label, the bytes of a state) for each part of a run beside its steps, on the card and on the host."""

    def of(place: int, name: str) -> Callable[[StateMemory], int | None]:
        def value(state: StateMemory) -> int | None:
            return getattr(state.phases[place], name) if place < len(state.phases) else None

        return value

    first = max((state.phases for state in states), key=len, default=())
    for place, phase in enumerate(first):
        yield phase.label, of(place, "peak")
        yield "  on the host", of(place, "host")


def phase_words(phase: Phase) -> str:
    """Return the settings of a part of a run, and the moment of its peak or why there is none."""
    return f"{phase.words}, {f'not measured: {phase.failure}' if phase.failure else f'at {phase.peak_at}'}"


def _on_card(state: StateMemory, mode: str) -> int | None:
    step = state.steps.get(mode)
    return None if step is None else on_card(step.peak)


def _of(state: StateMemory, mode: str, name: str) -> int | None:
    step = state.steps.get(mode)
    return None if step is None else int(getattr(step, name))


def _modes(states: tuple[StateMemory, ...]) -> list[str]:
    return list(dict.fromkeys(mode for state in states for mode in state.steps))


def _bars(states: tuple[StateMemory, ...], width: int, *, color: bool) -> Iterator[str]:
    """Yield one bar for each state's peak, and the module that runs at that moment.

    The peak is the one with checkpointing, or without it if the model's class has none.
    """
    shown = [(state, state.steps.get(ON) or next(iter(state.steps.values()))) for state in states if state.steps]
    most = max((step.peak for _, step in shown), default=0)
    if not most:
        return
    mode = ON if any(ON in state.steps for state, _ in shown) else "without checkpointing"
    yield f"peak, {mode}"
    room = width - 28
    for state, step in shown:
        eighths = round(step.peak / most * room * 8)
        bar = "█" * (eighths // 8) + _BLOCKS[eighths % 8].strip()
        painted = f"\x1b[36m{bar}\x1b[0m" if color else bar
        yield f"  {state.name:<{16}}{painted}{' ' * (room - len(bar))}{size(step.peak):>10}"
        yield f"  {'':<{16}}at {printable(step.peak_at)}"
