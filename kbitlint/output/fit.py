"""The answer of ``kbitlint fit`` as text (80 columns) and as JSON."""

from __future__ import annotations

import dataclasses
import textwrap
from typing import TYPE_CHECKING, Any

from kbitlint.memory_result import OFF
from kbitlint.output.json import dumped
from kbitlint.output.memory import phase_words
from kbitlint.output.timeline import chart
from kbitlint.output.wording import header, wrapped
from kbitlint.sizes import size
from kbitlint.upstream.cards import smallest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kbitlint.fit_result import Change, FitResult, Grid, RankMemory, Setup, Written

VERSION = 1


def render_json(report: FitResult) -> str:
    """Return the answer as one JSON document with sorted keys; all sizes are bytes."""
    record: dict[str, Any] = dataclasses.asdict(report) | {"version": VERSION, "fits": report.fits, "room": report.room}
    for name in ("asked", "answer"):
        if record[name] is not None:
            record[name]["plan"]["loss"] = getattr(report, name).plan.loss.value
    for change in (*record["changes"], *record["chosen"]):
        change["settings"] = [{**setting, "owner": setting["owner"].value} for setting in change["settings"]]
    return dumped(record)


def render_text(report: FitResult, *, color: bool = False, width: int = 80) -> str:
    """Return the answer as text. ``width`` is in columns."""
    lines = [*header(report.target, [report.summary, *report.notes], width), ""]
    lines += wrapped(f"{card_words(report)}: {', '.join(setup_words(report.asked))}", width, "")
    lines += ["", *_verdict(report, width, color=color)]
    if report.written is not None:
        lines += ["", *_written(report.written, width)]
    if report.room < 0:
        lines += ["", *_answer(report, width), "", *_changes(report.changes, width)]
    lines += ["", *_phases(report, width)] if report.phases else []
    lines += ["", *_largest(report, width)] if report.largest else []
    if report.step is not None:
        lines += ["", "the step as it was asked for, layer by layer", *chart(report.step, width, tensors_of(report))]
    if report.grid is not None:
        lines += ["", *_map(report, report.grid, width, color=color)]
    lines += ["", *wrapped(assumptions(report), width, "")]
    return "\n".join(lines)


def _verdict(report: FitResult, width: int, *, color: bool) -> Iterator[str]:
    verdict = verdict_words(report)
    first, *further = wrapped(f"{verdict}: {sum_words(report.memory)}", width, "")
    painted = f"\x1b[{32 if report.fits else 31}m{verdict}\x1b[0m"
    yield first.replace(verdict, painted, 1) if color else first
    yield from further


def verdict_words(report: FitResult) -> str:
    """Return whether a run fits, with its room."""
    if report.room >= 0 and report.too_large:
        names = [phase.name for phase in report.too_large]
        return f"its steps fit, and {' and '.join(names)} {'does' if len(names) == 1 else 'do'} not"
    return f"fits, {size(report.room)} left" if report.fits else f"does not fit, {size(-report.room)} too much"


#: what to set where a part of a run beside its steps does not fit
_ADVICE = {
    "evaluation": "per_device_eval_batch_size=1, eval_accumulation_steps=1, or prediction_loss_only=True",
    "generation": "steps_per_generation, max_completion_length, or use_vllm=True with cards of its own",
}


def _phases(report: FitResult, width: int) -> Iterator[str]:
    of = "of the cheapest way to fit" if report.chosen else "of this run"
    yield f"beside the steps {of}"
    for phase, on_card in report.phases:
        total = size(on_card) if on_card else "-"
        host = f", {size(phase.host)} on the host" if phase.host else ""
        fits = ", does not fit" if on_card > report.total else ""
        yield from wrapped(f"{phase.name}: {total} on the card{host}{fits}: {phase_words(phase)}", width, "  ")
        if fits and phase.name in _ADVICE:
            yield from wrapped(_ADVICE[phase.name], width, "      ")


def card_words(report: FitResult) -> str:
    """Return the cards with what a process can use of each."""
    cards = f"{report.gpus} x {report.card}" if report.gpus > 1 else report.card
    return f"{cards}, {size(report.total)} usable{' of each' if report.gpus > 1 else ''}"


def sum_words(memory: RankMemory) -> str:
    """Return the bytes of a rank in words."""
    host = f", {size(memory.host)} on the host" if memory.host else ""
    return f"{size(memory.on_card)} on the card ({size(memory.peak)} of tensors{host})"


def tensors_of(report: FitResult) -> int:
    """Return the bytes that tensors may take: as much of the card as its context and fragments leave."""
    return round(report.memory.peak * report.total / report.memory.on_card)


def setup_words(setup: Setup) -> Iterator[str]:
    """Yield the settings of a run in words."""
    yield "your batch" if setup.own_batch else f"{setup.batch} x {setup.seq_len} tokens"
    yield setup.mode if setup.mode == OFF else f"{setup.mode}".replace("checkpointed", "checkpointing")
    yield setup.plan.optimizer
    yield f"loss {setup.plan.loss.value}"
    if setup.plan.accumulation > 1:
        yield f"{setup.plan.accumulation} batches accumulated"
    if setup.strategy != "single":
        yield setup.strategy + (" with offload" if setup.offload else "")


def _written(written: Written, width: int) -> Iterator[str]:
    yield from wrapped(f"written into {written.file}, and rehearsed: {', '.join(written.changes)}", width, "")
    yield from written.diff.splitlines()


def _answer(report: FitResult, width: int) -> Iterator[str]:
    if report.answer is None or report.answer_memory is None:
        yield "nothing that kbitlint knows makes it fit"
        return
    yield f"cheapest way to fit: {sum_words(report.answer_memory)}"
    for change in report.chosen:
        yield from wrapped(f"{change.name}: {change.flags}", width, "  ")


def _changes(changes: tuple[Change, ...], width: int) -> Iterator[str]:
    yield "each change alone, cheapest first"
    for change in changes:
        start = f"  {change.name:<36}{size(-change.saves):>10}  {'fits' if change.fits else '':<5} "
        yield from textwrap.wrap(change.cost, width, initial_indent=start, subsequent_indent=" " * len(start))
        yield from wrapped(change.flags, width, "      ")


def _largest(report: FitResult, width: int) -> Iterator[str]:
    yield from wrapped(f"largest that fits{'' if report.fits else ' then'}: {largest_words(report)}", width, "")


def largest_words(report: FitResult) -> str:
    """Return the largest batches in words; empty if there is none."""
    found = " or ".join(f"{batch} x {tokens}" for batch, tokens in report.largest)
    return f"{found} tokens" if found else ""


def _map(report: FitResult, grid: Grid, width: int, *, color: bool) -> Iterator[str]:
    """Yield the map of batch and length: the smallest card that takes each batch, in GB as on its box."""
    of = "of the cheapest way to fit" if report.chosen else "of this run"
    yield from wrapped(f"the smallest card in GB for each batch {of} (sequences down, tokens across)", width, "")
    yield f"{'':>6}" + "".join(f"{tokens:>7}" for tokens in grid.lengths)
    for batch, row in zip(grid.batches, grid.on_card, strict=True):
        cells = []
        for nbytes in row:
            card = smallest(nbytes)
            text = f"{card if card is not None else '-':>7}"
            cells.append(f"\x1b[32m{text}\x1b[0m" if color and nbytes <= report.total else text)
        yield f"{batch:>6}" + "".join(cells)


def assumptions(report: FitResult) -> str:
    """Return what the figures assume."""
    text = f"Figures of {report.steps} traced steps, with 169 MB for CUDA's context and 5 % for fragments of the allocator."
    shards = {setup.strategy for setup in (report.asked, report.answer) if setup is not None} - {"single"}
    return text + (" Each rank is computed from the step of one card." if shards else "")
