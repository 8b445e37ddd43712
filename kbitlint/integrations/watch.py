"""Watches the first steps of a real run, reports once, and then does nothing more.

Each integration passes two events: gradients are complete, and the optimizer's step is over.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import os
from typing import TYPE_CHECKING, Any

from kbitlint.errors import one_line
from kbitlint.integrations import publication
from kbitlint.integrations.exchange import world_size
from kbitlint.lazy_dataclass import dataclass
from kbitlint.memory_result import OFF, ON
from kbitlint.model.inspect.first_steps import FirstSteps, LargestBatch, Peak, has_cuda
from kbitlint.output.wording import plural, some
from kbitlint.sizes import size

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from kbitlint.context import TrainingContext
    from kbitlint.facts.first_steps import FirstStepsFacts

_log = logging.getLogger("kbitlint")
WATCHED = "kbitlint-watch.json"
"""The name of the watch's report in the output directory."""
LEAST = 2
"""In the first step no gradient reaches the A of LoRA, because its B is zero. The second step shows it."""
_PATIENCE = 8
"""Attempts for each step that is watched: the scale of float16 starts at 65536, and steps are skipped until it fits."""
_SHOWN = 3
_OVERFLOW = "KB101, KB106, KB121"
_NEAR = 1.1
"""A measured peak up to this factor above the promised one is no finding: the allocator rounds, and kernels need workspace."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One observation of the first steps that people should know of."""

    what: str
    paths: tuple[str, ...] = ()
    rules: str = ""
    """The rules that find its cause before a run."""

    def __str__(self) -> str:
        shown = some(self.paths, _SHOWN)
        return self.what + (f": {shown}" if shown else "") + (f" ({self.rules})" if self.rules else "")


@dataclass(frozen=True, slots=True)
class WatchReport:
    """The report on the first steps of one rank; ``print`` shows it as text."""

    seen: FirstStepsFacts
    findings: tuple[Finding, ...]

    def __str__(self) -> str:
        """Return the report as text: one line, and one for each finding."""
        seen = self.seen
        count = plural(len(self.findings), "finding") if self.findings else "nothing to report"
        known = f"{plural(seen.trainable, 'trainable parameter')}, {seen.frozen} frozen"
        lines = [f"kbitlint watched the first {plural(seen.steps, 'step')} ({known}): {count}", *self._memory()]
        return "\n  ".join([*lines, *map(str, self.findings)])

    def _memory(self) -> list[str]:
        seen = self.seen
        if seen.peak is None or seen.batch is None:
            return []
        promised = f", {size(seen.promised)} were computed" if seen.promised else ""
        return [f"peak of {size(seen.peak)} for {seen.batch[0]} x {seen.batch[1]} tokens{promised}"]

    def numbers(self) -> dict[str, float]:
        """Return the counts to log."""
        seen = self.seen
        counted = ("without_gradient", "unchanged", "nonfinite_gradients", "nonfinite_values", "changed_frozen")
        counts = {f"kbitlint/watch/{name}": float(len(getattr(seen, name))) for name in counted}
        return {**counts, "kbitlint/watch/steps": float(seen.steps), "kbitlint/watch/skipped": float(seen.skipped)}

    def to_json(self) -> str:
        """Return the report as a JSON document."""
        return json.dumps({"seen": self.seen.as_dict(), "findings": list(map(str, self.findings))}, indent=2)


def findings_of(seen: FirstStepsFacts) -> Iterator[Finding]:
    """Yield what is wrong with the first steps."""
    if not seen.trainable:
        yield Finding("no trainable parameter can be read on this rank", rules="KB202")
    if seen.skipped > seen.steps:
        yield Finding(f"the gradient scaler skipped {seen.skipped} of {seen.steps + seen.skipped} steps", rules=_OVERFLOW)
    yield from _of_parameters(seen)
    if seen.steps and not seen.moved_at_rate:
        yield Finding("the learning rate was 0 in every step that was watched")
    if seen.changed_frozen:
        yield Finding(f"{len(seen.changed_frozen)} of {seen.frozen} frozen parameters changed", seen.changed_frozen)
    if seen.peak is not None and seen.promised is not None and seen.peak > _NEAR * seen.promised:
        yield Finding(f"the peak of {size(seen.peak)} is above the {size(seen.promised)} that were computed")


def _of_parameters(seen: FirstStepsFacts) -> Iterator[Finding]:
    """Yield the states of trainable parameters that no healthy step leaves."""
    silent = seen.without_gradient if seen.steps >= LEAST else ()
    kept = seen.unchanged if seen.steps and seen.moved_at_rate else ()
    states = (
        (seen.nonfinite_gradients, "had a gradient that is not finite", _OVERFLOW),
        (seen.nonfinite_values, "became NaN or infinite", _OVERFLOW),
        (silent, "received no gradient", "KB301, KB303, KB604"),
        (kept, "did not change", "KB307, KB706"),
    )
    for paths, state, rules in states:
        if paths:
            yield Finding(f"{len(paths)} of {plural(seen.trainable, 'trainable parameter')} {state}", paths, rules)


class Watch:
    """The watch over the first optimizer steps of a run."""

    def __init__(
        self,
        model: Any,
        steps: int,
        told: Callable[[WatchReport], None],
        promise: Callable[[tuple[int, int]], int | None] | None = None,
    ) -> None:
        """Read the parameters once, before the first step.

        Args:
            model: The prepared model, with its wrappers.
            steps: Optimizer steps to watch, ``LEAST`` or more.
            told: A function that receives the report.
            promise: A function that returns the computed peak in bytes for (sequences, tokens).
        """
        self._steps, self._told, self._promise = steps, told, promise
        self._seen = FirstSteps(model)
        cuda = has_cuda(model)
        self._batches = LargestBatch(model) if cuda else None
        self._peak = Peak() if cuda else None
        self._waiting = False
        self.done = False
        """Whether the report is out."""

    def gradients(self, rates: Iterable[float] = ()) -> None:
        """Read the gradients: they are complete, and the optimizer has not stepped yet."""
        self._seen.read_gradients(rates)
        self._waiting = True

    def stepped(self, *, skipped: bool = False) -> None:
        """Count the step whose gradients were read, and report after the last one that is watched."""
        if not self._waiting:
            return
        self._waiting = False
        self._seen.count_step(skipped=skipped)
        if self._seen.steps >= self._steps or self._seen.steps + self._seen.skipped >= self._steps * _PATIENCE:
            self.finish()

    def finish(self) -> None:
        """Report what was seen, if any step was, and let go of the parameters."""
        if self.done:
            return
        self.done = True
        if self._batches is not None:
            self._batches.remove()
        if self._seen.steps + self._seen.skipped:
            seen = self._with_memory(self._seen.facts())
            self._told(WatchReport(seen, tuple(findings_of(seen))))
        del self._seen, self._promise

    def _with_memory(self, seen: FirstStepsFacts) -> FirstStepsFacts:
        if self._batches is None or self._peak is None:
            return seen
        batch, peak = self._batches.shape, self._peak.read()
        promised = None if batch is None or peak is None or self._promise is None else self._promise(batch)
        return dataclasses.replace(seen, batch=batch, peak=peak, promised=promised)


def promise_of(model: Any, context: TrainingContext) -> Callable[[tuple[int, int]], int | None]:
    """Return a function that computes the peak of a step of a model, in bytes; None if the step cannot run without weights."""

    def promise(batch: tuple[int, int]) -> int | None:
        from kbitlint.fixes.budget import AS_IT_IS, plan_of, prepared_twin  # only a run on CUDA computes it
        from kbitlint.model.memory.step_memory import measure  # as above

        described = dataclasses.replace(context, batch_size=batch[0], seq_len=batch[1])
        try:
            twin = prepared_twin(model, None, described, None)
            state = measure(AS_IT_IS, twin, described, plan_of(described, None, "full", None, 1, None), owned=True)
        except Exception as error:  # noqa: BLE001  # a comparison must not stop a run that trains
            _log.info("the memory of a step was not computed: %s", one_line(error))
            return None
        mode = ON if getattr(model, "is_gradient_checkpointing", False) else OFF
        return state.steps[mode].peak if mode in state.steps else None

    return promise


def tell(
    report: WatchReport, folder: Path | None, *, first: bool, report_to: Callable[[dict[str, float]], object] | None
) -> None:
    """Log a watch's report, write it into a folder, and pass its counts on.

    Ranks but the first one log only findings.

    Args:
        report: The report of this rank.
        folder: The output directory; None writes no file.
        first: Whether this is the first rank.
        report_to: A function that receives the counts; None passes them to nothing.
    """
    if report.findings or first:
        publication.log(f"{'' if first else _rank()}{report}", warns=bool(report.findings))
    if not first:
        return
    publication.write(folder, WATCHED, report.to_json())
    if report_to is not None:
        report_to(report.numbers())


def _rank() -> str:
    return f"rank {os.environ.get('RANK', '?')} of {world_size()}: "
