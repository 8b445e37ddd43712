"""The answer of ``kbitlint fit`` as text (80 columns) and as JSON."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from kbitlint.memory_result import OFF
from kbitlint.output.json import dumped
from kbitlint.output.wording import header, wrapped
from kbitlint.sizes import size

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kbitlint.fit_result import Change, FitResult, RankMemory, Setup

VERSION = 1


def render_json(report: FitResult) -> str:
    """Return the answer as one JSON document with sorted keys; all sizes are bytes."""
    record: dict[str, Any] = dataclasses.asdict(report) | {"version": VERSION, "fits": report.fits, "room": report.room}
    for name in ("asked", "answer"):
        if record[name] is not None:
            record[name]["plan"]["loss"] = getattr(report, name).plan.loss.value
    return dumped(record)


def render_text(report: FitResult, *, color: bool = False, width: int = 80) -> str:
    """Return the answer as text. ``width`` is in columns."""
    cards = f"{report.gpus} x {report.card}" if report.gpus > 1 else report.card
    lines = [*header(report.target, [report.summary, *report.notes], width), ""]
    lines += wrapped(f"{cards}, {size(report.total)} usable: {', '.join(_words(report.asked))}", width, "")
    verdict = f"fits, {size(report.room)} left" if report.fits else f"does not fit, {size(-report.room)} too much"
    painted = f"\x1b[{32 if report.fits else 31}m{verdict}\x1b[0m" if color else verdict
    lines += ["", f"{painted}: {_sum(report.memory)}"]
    if not report.fits:
        lines += ["", *_answer(report, width), "", *_changes(report.changes, width)]
    lines += ["", *_largest(report, width)] if report.largest else []
    lines += ["", *wrapped(_assumptions(report), width, "")]
    return "\n".join(lines)


def _sum(memory: RankMemory) -> str:
    host = f", {size(memory.host)} on the host" if memory.host else ""
    return f"{size(memory.on_card)} on the card ({size(memory.peak)} of tensors{host})"


def _words(setup: Setup) -> Iterator[str]:
    yield f"{setup.batch} x {setup.seq_len} tokens"
    yield setup.mode if setup.mode == OFF else f"{setup.mode}".replace("checkpointed", "checkpointing")
    yield setup.plan.optimizer
    yield f"loss {setup.plan.loss.value}"
    if setup.plan.accumulation > 1:
        yield f"{setup.plan.accumulation} batches accumulated"
    if setup.strategy != "single":
        yield setup.strategy + (" with offload" if setup.offload else "")


def _answer(report: FitResult, width: int) -> Iterator[str]:
    if report.answer is None or report.answer_memory is None:
        yield "nothing that kbitlint knows makes it fit"
        return
    yield f"cheapest way to fit: {_sum(report.answer_memory)}"
    for change in report.chosen:
        yield from wrapped(f"{change.name}: {change.flags}", width, "  ")


def _changes(changes: tuple[Change, ...], width: int) -> Iterator[str]:
    yield "each change alone, cheapest first"
    for change in changes:
        fits = "fits" if change.fits else ""
        yield f"  {change.name:<36}{size(-change.saves):>10}  {fits:<5}{change.cost}"[:width].rstrip()
        yield from wrapped(change.flags, width, "      ")


def _largest(report: FitResult, width: int) -> Iterator[str]:
    found = " or ".join(f"{batch} x {tokens}" for batch, tokens in report.largest)
    yield from wrapped(f"largest that fits{'' if report.fits else ' then'}: {found} tokens", width, "")


def _assumptions(report: FitResult) -> str:
    text = f"Figures of {report.steps} traced steps, with 169 MB for CUDA's context and 5 % for fragments of the allocator."
    shards = {setup.strategy for setup in (report.asked, report.answer) if setup is not None} - {"single"}
    return text + (" Each rank is computed from the step of one card." if shards else "")
