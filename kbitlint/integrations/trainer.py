"""A callback for transformers' Trainer, and so for TRL's: it audits the model that is about to train.

trainer = SFTTrainer(model, args=args, callbacks=[KbitlintCallback()], ...)
"""

from __future__ import annotations

import inspect
import logging
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transformers import TrainerCallback

from kbitlint import api, registry
from kbitlint.audit.options import options_of
from kbitlint.audit.run import context_of, model_of
from kbitlint.audit.turn import turn
from kbitlint.context import Strategy, TrainingContext
from kbitlint.errors import KbitlintError, did_you_mean
from kbitlint.files import atomic
from kbitlint.integrations.exchange import DEFAULT_TIMEOUT, group
from kbitlint.integrations.ranks import RankAudit, over_ranks, seen
from kbitlint.output import json, text
from kbitlint.target import held
from kbitlint.violation import Severity

if TYPE_CHECKING:
    from collections.abc import Callable

    from kbitlint.report import Report

_log = logging.getLogger("kbitlint")
REPORT = "kbitlint-report.json"
"""The name of the report in Trainer's output directory."""
NEVER = "never"


class NotReadyError(KbitlintError):
    """The callback stopped training before its first step; the message is the report."""

    def __init__(self, report: Report) -> None:
        self.report = report
        super().__init__("training was stopped before its first step\n\n" + text.render(report))


class KbitlintCallback(TrainerCallback):  # type: ignore[misc]  # transformers is Any to mypy here
    """A callback that audits the prepared model and its optimizer before the first step, on every rank.

    Args:
        fail_on: The least severity that stops training: ``info``, ``warning``, ``error``, or ``never``.
        fix: Whether to apply safe fixes first. This needs a run with one process: in other runs, wrappers have already read
            the model.
        report_to: A function that receives the summary, a dictionary of numbers. None means Trainer's own loggers.
        timeout: Seconds that a rank waits for the others.
        **options: As for ``kbitlint.check``: ``select``, ``ignore``, ``context``, ``trace``.

    Raises:
        KbitlintError: ``fail_on`` is no severity, or an option is wrong.
    """

    def __init__(
        self,
        fail_on: str | Severity = "error",
        fix: bool = False,  # noqa: FBT001, FBT002  # users may pass it by position
        report_to: Callable[[dict[str, float]], object] | None = None,
        *,
        timeout: float = DEFAULT_TIMEOUT,
        **options: Any,
    ) -> None:
        word = fail_on.value if isinstance(fail_on, Severity) else fail_on
        known = [*(severity.value for severity in Severity), NEVER]
        if word not in known:
            raise KbitlintError(f"fail_on: {word!r} is none of {', '.join(known)}{did_you_mean(str(word), known)}")
        self.fail_on = None if word == NEVER else Severity(word)
        self.fix, self.report_to, self.timeout = fix, report_to, timeout
        self.options = options
        self.chosen = options_of(options)
        self.rules = registry.select(self.chosen.select, self.chosen.ignore, self.chosen.rule_options)
        self.report: Report | None = None
        """The report of the last audit; None before the first."""

    def on_train_begin(self, args: Any, state: Any, control: Any, **prepared: Any) -> None:  # noqa: ARG002  # Trainer passes control
        """Audit the model and write the report.

        Raises:
            NotReadyError: A violation has at least the severity ``fail_on``, or an audit failed.
        """
        trainer = _calling("Trainer", "train")
        model, optimizer = prepared.get("model"), prepared.get("optimizer")
        target = _Prepared(model, args, getattr(trainer, "accelerator", None), getattr(trainer, "model_wrapped", None))
        ranks = group(self.timeout)

        def look() -> RankAudit:
            with turn(held(model)):
                return self._look(target, optimizer, trainer, alone=ranks is None)

        joint = over_ranks(ranks, look, self.rules, self.timeout)
        self.report = joint.report
        if state.is_world_process_zero:
            self._tell(args)
        self._log(None if ranks is not None and joint.report.crashes else trainer, state)
        if joint.report.crashes and self.fail_on is not None:
            raise NotReadyError(joint.report)
        if self.fail_on is not None and joint.report.at_least(self.fail_on):
            raise NotReadyError(joint.report)

    def _look(self, target: _Prepared, optimizer: Any, trainer: Any, *, alone: bool) -> RankAudit:
        context = target.context(self.chosen.context)
        options = {**self.options, "context": context}
        if context.strategy in (Strategy.FSDP1, Strategy.FSDP2, Strategy.ZERO3):
            options["trace"] = False  # a rank holds shards, from which the trace cannot copy the model
        training = target.model.training
        target.model.train()  # as Trainer does before each step
        try:
            if self.fix:
                if not alone:
                    raise KbitlintError("fix=True works in one process: call kbitlint.fix(model) before Trainer is built")
                api.fix(target.model, optimizer=optimizer, **options)
            return seen(target.wrapped, api.check(target.model, **options), context, optimizer, trainer)
        finally:
            target.model.train(training)

    def _tell(self, args: Any) -> None:
        """Write the report into the output directory, and log its text."""
        report = self.report
        assert report is not None  # noqa: S101  # on_train_begin has just set it
        folder = Path(args.output_dir)
        folder.mkdir(parents=True, exist_ok=True)
        atomic.replace(folder / REPORT, (json.render([report]) + "\n").encode())
        level = logging.WARNING if report.violations or report.crashes else logging.INFO
        _log.log(level, "%s", text.render(report))

    def _log(self, trainer: Any, state: Any) -> None:
        """Log the summary on every rank, as Trainer does: the ``log`` of some trainers gathers values from all ranks.

        If a rank is lost, ``trainer`` is None. The summary is then added to the state only, because a gather would wait for
        that rank.
        """
        assert self.report is not None  # noqa: S101  # on_train_begin has just set it
        numbers = summary(self.report)
        if self.report_to is not None:
            if state.is_world_process_zero:
                self.report_to(numbers)
        elif trainer is not None:
            trainer.log(dict(numbers))
        else:  # also if a user's own loop calls the event
            state.log_history.append({**numbers, "step": state.global_step})


def summary(report: Report) -> dict[str, float]:
    """Return the numbers to log: violations of each severity and of each rule, and crashes."""
    severities = Counter(violation.severity for violation in report.violations)
    codes = Counter(violation.code for violation in report.violations)
    numbers = {f"kbitlint/{severity.value}": float(severities[severity]) for severity in Severity}
    numbers |= {f"kbitlint/{code}": float(count) for code, count in sorted(codes.items())}
    return {**numbers, "kbitlint/crashes": float(len(report.crashes))}


class _Prepared:
    """A prepared model with its arguments and accelerator, with the attributes of a Trainer."""

    def __init__(self, model: Any, args: Any, accelerator: Any, wrapped: Any) -> None:
        self.model, self.args, self.accelerator = model, args, accelerator
        self.wrapped = model if wrapped is None else wrapped

    def context(self, given: TrainingContext) -> TrainingContext:
        """Return the context of the arguments, the accelerator and the wrappers; values in ``given`` override it."""
        read = context_of(model_of(self.wrapped), TrainingContext())
        return TrainingContext.from_trainer(self).updated(read).updated(given)


def _calling(name: str, method: str) -> Any:
    """Return the nearest caller's ``self`` that is an instance of a class and has a method; None if there is none.

    Trainer passes its callbacks the model and the optimizer, but not itself, its loggers or its accelerator
    (transformers 5.23, trainer_callback.py, ``CallbackHandler.call_event``). The stack is the only way to them.
    """
    frame = inspect.currentframe()
    while frame is not None:
        found = frame.f_locals.get("self")
        if any(base.__name__ == name for base in type(found).__mro__) and hasattr(found, method):
            return found
        frame = frame.f_back
    return None
