"""The mechanism of every integration: audit a prepared run on all ranks, report, stop it, and watch its first steps.

The integrations with Trainer, accelerate and Lightning say what the run is and where its output goes.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from typing import TYPE_CHECKING, Any

from kbitlint import api, registry
from kbitlint.audit.options import options_of
from kbitlint.audit.run import context_of, model_of
from kbitlint.audit.turn import turn
from kbitlint.context import Strategy, TrainingContext
from kbitlint.errors import KbitlintError, did_you_mean
from kbitlint.integrations import publication
from kbitlint.integrations.exchange import DEFAULT_TIMEOUT, group
from kbitlint.integrations.ranks import RankAudit, over_ranks, seen
from kbitlint.lazy_dataclass import dataclass
from kbitlint.output import json, text
from kbitlint.target import held
from kbitlint.violation import Severity

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from kbitlint.integrations.watch import Watch, WatchReport
    from kbitlint.report import Report

REPORT = "kbitlint-report.json"
"""The name of the report in the output directory."""
NEVER = "never"
_SHARDED = (Strategy.FSDP1, Strategy.FSDP2, Strategy.ZERO3)


class NotReadyError(KbitlintError):
    """Training was stopped before its first step; the message is the report."""

    def __init__(self, report: Report) -> None:
        self.report = report
        super().__init__("training was stopped before its first step\n\n" + text.render(report))


@dataclass(frozen=True, slots=True)
class Run:
    """A prepared run, as an integration sees it."""

    model: Any
    """The model without the wrappers of the run."""
    wrapped: Any
    """The model with them."""
    optimizer: Any = None
    """None if it is not known."""
    context: TrainingContext = dataclasses.field(default_factory=TrainingContext)
    """What the framework's settings say; wrappers, then the caller's own context override it."""
    trainer: Any = None
    """A Trainer of transformers or TRL, whose data and reference are read; None for other loops."""
    enters_training: bool = False
    """Whether the framework calls ``model.train()`` before each step."""
    first: bool = True
    """Whether this is the first rank, which logs and writes the report."""
    folder: Path | None = None
    """The output directory; None writes no file."""

    @property
    def audited(self) -> Any:
        """The Trainer, whose loss and generation are then traced as well, or the model if no Trainer holds it."""
        return self.trainer if getattr(self.trainer, "model", None) is self.model else self.model

    def described(self, given: TrainingContext) -> TrainingContext:
        """Return the context of the settings and the wrappers; values in ``given`` override it."""
        read = context_of(model_of(self.wrapped), TrainingContext())
        return self.context.updated(read).updated(given)


class Gate:
    """The settings of an integration, its audit, and what the audit and the watch have found.

    Args:
        fail_on: The least severity that stops training: ``info``, ``warning``, ``error``, or ``never``.
        fix: Whether to apply safe fixes first. This needs a run with one process: in other runs, wrappers have already read
            the model.
        report_to: A function that receives numbers: the summary of the audit, and the counts of the watch.
        timeout: Seconds that a rank waits for the others.
        watch: Optimizer steps to watch, 2 or more; 0 watches none.
        options: As for ``kbitlint.check``.

    Raises:
        KbitlintError: ``fail_on`` is no severity, ``watch`` is wrong, or an option is.
        TypeError: There is no such option.
    """

    def __init__(
        self,
        fail_on: str | Severity = "error",
        *,
        fix: bool = False,
        report_to: Callable[[dict[str, float]], object] | None = None,
        timeout: float = DEFAULT_TIMEOUT,
        watch: int = 0,
        options: dict[str, Any],
    ) -> None:
        word = fail_on.value if isinstance(fail_on, Severity) else fail_on
        known = [*(severity.value for severity in Severity), NEVER]
        if word not in known:
            raise KbitlintError(f"fail_on: {word!r} is none of {', '.join(known)}{did_you_mean(str(word), known)}")
        if not isinstance(watch, int) or watch < 0 or watch == 1:
            why = "in the first step no gradient reaches the A of LoRA, because B is zero"
            raise KbitlintError(f"watch: {watch!r} is no number of steps to watch: use 0, or 2 and more ({why})")
        self.fail_on = None if word == NEVER else Severity(word)
        self.fix, self.report_to, self.timeout, self.steps = fix, report_to, timeout, watch
        self.options, self.chosen = options, options_of(options)
        self.rules = registry.select(self.chosen.select, self.chosen.ignore, self.chosen.rule_options)
        self.report: Report | None = None
        """The report of the last audit; None before the first."""
        self.watched: WatchReport | None = None
        """The report on the first steps; None until it is out."""

    def needs_optimizer(self, optimizer: Any) -> None:
        """Raise KbitlintError if steps are to be watched and there is no optimizer whose steps could be."""
        if self.steps and optimizer is None:
            raise KbitlintError(f"watch={self.steps}: pass the optimizer, whose steps are watched")

    def audit(self, run: Run, log: Callable[[Report, bool], None] | None = None) -> Report:
        """Audit a prepared run on every rank, and write the report.

        Args:
            run: The run.
            log: A function that logs the summary; it receives the report on every rank, and whether every rank answered.

        Raises:
            NotReadyError: A violation has at least the severity ``fail_on``, or an audit failed.
        """
        ranks = group(self.timeout)

        def look() -> RankAudit:
            with turn(held(run.model)):
                return self._look(run, alone=ranks is None)

        report = self.report = over_ranks(ranks, look, self.rules, self.timeout).report
        if run.first:
            publication.write(run.folder, REPORT, json.render([report]))
            publication.log(text.render(report), warns=bool(report.violations or report.crashes))
        if self.report_to is not None:
            if run.first:
                self.report_to(summary(report))
        elif log is not None:
            log(report, ranks is None or not report.crashes)
        if self.stops(report):
            raise NotReadyError(report)
        return report

    def stops(self, report: Report) -> bool:
        """Return whether a report stops training."""
        return self.fail_on is not None and bool(report.crashes or report.at_least(self.fail_on))

    def _look(self, run: Run, *, alone: bool) -> RankAudit:
        context = run.described(self.chosen.context)
        options = {**self.options, "context": context}
        if context.strategy in _SHARDED:
            options["trace"] = False  # a rank holds shards, from which the trace cannot copy the model
        training = run.model.training
        if run.enters_training:
            run.model.train()
        try:
            if self.fix:
                if not alone:
                    raise KbitlintError("fix=True works in one process: call kbitlint.fix(model) before the run is prepared")
                api.fix(run.model, optimizer=run.optimizer, **options)
            return seen(run.wrapped, api.check(run.audited, **options), context, run.optimizer, run.trainer)
        finally:
            if run.enters_training:
                run.model.train(training)

    def watch(self, run: Run) -> Watch | None:
        """Return a watch over the next steps of a run; None if none was asked for."""
        if not self.steps:
            return None
        from kbitlint.integrations.watch import Watch, promise_of, tell  # most runs are not watched

        def told(report: WatchReport) -> None:
            self.watched = report
            tell(report, run.folder, first=run.first, report_to=self.report_to)

        return Watch(run.wrapped, self.steps, told, promise_of(run.model, run.described(self.chosen.context)))


def summary(report: Report) -> dict[str, float]:
    """Return the numbers to log: violations of each severity and of each rule, and crashes."""
    severities = Counter(violation.severity for violation in report.violations)
    codes = Counter(violation.code for violation in report.violations)
    numbers = {f"kbitlint/{severity.value}": float(severities[severity]) for severity in Severity}
    numbers |= {f"kbitlint/{code}": float(count) for code, count in sorted(codes.items())}
    return {**numbers, "kbitlint/crashes": float(len(report.crashes))}
