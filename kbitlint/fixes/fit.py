"""``kbitlint fit``: whether a run fits its cards, the largest batch that does, or the cheapest changes that make it fit.

Imports of torch, PEFT and ``kbitlint.model`` are inside functions: audits of scripts and files need none of them.
"""

from __future__ import annotations

import dataclasses
import itertools
from typing import TYPE_CHECKING, Any

from kbitlint.errors import KbitlintError
from kbitlint.fit_result import Setup
from kbitlint.fixes.changes import TILES, Option, changes_of, options_of
from kbitlint.fixes.grid import grid_of
from kbitlint.fixes.lora import parse_lora
from kbitlint.fixes.measured_target import launch_of, measurable
from kbitlint.fixes.meter import Meter
from kbitlint.lazy_dataclass import dataclass
from kbitlint.memory_result import ON, mode_of
from kbitlint.step_report import FitReport
from kbitlint.upstream import cards

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kbitlint.audit.open import OpenTarget
    from kbitlint.audit.options import Options
    from kbitlint.context import TrainingContext
    from kbitlint.context.launch import Launch
    from kbitlint.fit_result import Owner
    from kbitlint.fixes.lora import Lora
    from kbitlint.step_plan import StepPlan
    from kbitlint.upstream.cards import Card

#: combinations of changes that are tried at most, cheapest first
MAX_TRIED = 400
#: lengths are multiples of so many tokens
STRIDE = 64


@dataclass(frozen=True, slots=True)
class Asked:
    """The run that the user asked about."""

    card: Card
    launch: Launch
    plan: StepPlan
    checkpointing: str | None
    """``none`` or ``all``; None for that of the loop, or of the model's flags."""
    lora: Lora | None
    writable: frozenset[tuple[Owner, str]] | None = None
    """The settings that a script takes, if only changes that it can hold are chosen; None if no script limits them."""


def asked_of(  # each is one setting of the run
    gpu: str,
    spread: tuple[str | None, int | None, bool],
    checkpointing: str | None,
    context: TrainingContext,
    plan: StepPlan,
    lora: str | None,
) -> Asked:
    """Return the run that the user asked about. ``spread`` is (strategy, cards, whether weights are offloaded).

    Raises:
        KbitlintError: The card, the strategy or the mode of checkpointing is unknown.
    """
    strategy, gpus, offload = spread
    launch = launch_of(strategy, gpus, context, offload=offload)
    if checkpointing not in (None, "none", "all"):
        raise KbitlintError(f"checkpointing {checkpointing!r} is none of none, all")
    return Asked(cards.find(gpu), launch, plan, checkpointing, None if lora is None else parse_lora(lora))


def _stride(asked: Asked, context: TrainingContext, meter: Meter) -> int:
    """Return every how many layers of a run checkpoint, 0 for none: as asked for, by the loop, or by the model's flags.

    A loop that enables no checkpointing leaves the flags of the model as they are.
    """
    if asked.checkpointing is not None:
        return 0 if asked.checkpointing == "none" else 1
    loop = context.gradient_checkpointing
    return loop.every if loop is not None and loop.enabled else meter.stride


def fit_target(opened: OpenTarget, options: Options, shape: tuple[int | None, int | None], asked: Asked) -> FitReport:
    """Return whether the run of an open target fits.

    Raises:
        TargetError: The target holds no model, or is a function that must not run.
    """
    from kbitlint.model.isolation import quiet

    model, context = measurable(opened, options, shape)
    with quiet(), opened.confined():
        return fit_of(model, context, asked, (opened.target.text, opened.notes), opened.live)


def fit_of(
    model: Any, context: TrainingContext, asked: Asked, named: tuple[str, tuple[str, ...]], live: Any = None
) -> FitReport:
    """Return whether a run fits, and what would make it fit.

    Args:
        model: A model, live or on meta. It is only read.
        context: Autocast, batch and length.
        asked: The cards and the other settings.
        named: The target, and the notes on how it was built.
        live: The Trainer that holds the model; None if there is none.
    """
    meter = Meter(model, context, asked.card, asked.launch.ranks, asked.lora, live)
    stride = _stride(asked, context, meter) if ON in meter.modes else 0
    plan = asked.plan.but(every=max(stride, 2))
    setup = Setup(
        plan,
        meter.batch,
        meter.seq_len,
        mode_of(stride),
        meter.lora.rank if meter.lora is not None else None,
        strategy=asked.launch.strategy,
        offload=asked.launch.offload,
        own_batch=meter.own_batch,
    )
    memory = meter.rank(setup)
    fits = memory.on_card <= asked.card.total
    chosen, answer = ((), setup) if fits else _cheapest(setup, meter, asked.writable)
    if answer is None and asked.writable is not None:
        chosen, answer = _cheapest(setup, meter)
    largest = tuple(_largest(answer, meter)) if answer is not None and not meter.own_batch else ()
    grid = None if meter.own_batch else grid_of(answer or setup, meter)
    name, notes = named
    if meter.lora is not None:
        notes = (*notes, f"with {meter.lora.words} attached for this")
    return FitReport(
        target=name,
        summary=meter.summary,
        card=asked.card.name,
        total=asked.card.total,
        gpus=asked.launch.ranks,
        asked=setup,
        memory=memory,
        changes=() if fits else changes_of(setup, meter),
        chosen=tuple(option.change(setup, meter) for option in chosen),
        answer=answer,
        answer_memory=None if answer is None else meter.rank(answer),
        largest=largest,
        steps=meter.steps,
        notes=notes,
        step=meter.state(setup).steps[setup.mode],
        grid=grid,
        phases=meter.phases(answer or setup),
    )


def _cheapest(
    setup: Setup, meter: Meter, writable: frozenset[tuple[Owner, str]] | None = None
) -> tuple[tuple[Option, ...], Setup | None]:
    """Return the changes of the least price that make a run fit together, and the run with them."""
    groups = [[None, *group] for group in options_of(setup, meter, writable)]
    combinations = sorted(
        ([option for option in combination if option is not None] for combination in itertools.product(*groups)),
        key=lambda options: (sum(option.price for option in options), len(options)),
    )
    every = [group[-1] for group in groups if group[-1] is not None]
    # the tiles of a loss take more than the logits of a small vocabulary
    possible = [
        options for options in (every, [option for option in every if option.name != TILES]) if _fits(setup, options, meter)
    ]
    if not possible:
        return (), None
    strongest = possible[0]
    for options in combinations[1 : MAX_TRIED + 1]:
        changed = _with(setup, options)
        if meter.fits(changed):
            return tuple(options), changed
    return tuple(strongest), _with(setup, strongest)


def _fits(setup: Setup, options: list[Option], meter: Meter) -> bool:
    return meter.fits(_with(setup, options))


def _with(setup: Setup, options: list[Option]) -> Setup:
    for option in options:
        setup = option.apply(setup)
    return setup


def _largest(setup: Setup, meter: Meter) -> Iterator[tuple[int, int]]:
    """Yield (batch, tokens) of the largest batches that fit: of the same length, and of one sequence."""
    yield _most(setup, meter, "batch"), setup.seq_len
    longest = _most(setup, meter, "seq_len")
    if longest > setup.seq_len:
        yield setup.batch, longest


def _most(setup: Setup, meter: Meter, name: str) -> int:
    """Return the largest value of ``batch`` or ``seq_len`` that fits, in steps of one sequence or ``STRIDE`` tokens.

    The peak is affine in both, or quadratic in the length where scores are stored. Each guess is a secant through the two
    nearest traced steps, and the answer is a traced step that fits, whose successor does not.
    """
    unit = 1 if name == "batch" else STRIDE
    start = getattr(setup, name) // unit or 1
    limit = max(meter.most(setup, name) // unit, start)
    known: dict[int, int] = {}

    def peak(count: int) -> int:
        if count not in known:
            changed = {name: count * unit}
            known[count] = meter.rank(dataclasses.replace(setup, **changed)).on_card  # type: ignore[arg-type]  # batch or seq_len
        return known[count]

    low, high = start, min(2 * start, limit)
    if peak(low) > meter.card.total or (name == "seq_len" and peak(low) == peak(high)):  # images have no length
        return start * unit
    while peak(high) <= meter.card.total and high < limit:
        slope = (peak(high) - peak(low)) / max(high - low, 1)
        guess = high + (int((meter.card.total - peak(high)) / slope) if slope > 0 else high)
        low, high = high, min(max(guess, high + 1), limit, 64 * high)
    if peak(high) <= meter.card.total:
        return high * unit
    while high - low > 1:
        slope = (peak(high) - peak(low)) / (high - low)
        guess = low + int((meter.card.total - peak(low)) / slope)
        guess = min(max(guess, low + 1), high - 1)
        low, high = (guess, high) if peak(guess) <= meter.card.total else (low, guess)
        if low + 1 < high and peak(low + 1) > meter.card.total:
            high = low + 1
    return low * unit
