"""A callback for transformers' Trainer, and so for TRL's: it audits the model that is about to train.

trainer = SFTTrainer(model, args=args, callbacks=[KbitlintCallback(watch=3)], ...)
"""

from __future__ import annotations

import contextlib
import inspect
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from transformers import TrainerCallback

from kbitlint.context import TrainingContext
from kbitlint.integrations.exchange import DEFAULT_TIMEOUT
from kbitlint.integrations.gate import REPORT, Gate, NotReadyError, Run, summary

if TYPE_CHECKING:
    from collections.abc import Callable

    from kbitlint.integrations.watch import Watch, WatchReport
    from kbitlint.report import Report
    from kbitlint.violation import Severity

__all__ = ["REPORT", "KbitlintCallback", "NotReadyError", "summary"]


class KbitlintCallback(TrainerCallback):  # type: ignore[misc]  # transformers is Any to mypy here
    """A callback that audits the prepared model and its optimizer before the first step, on every rank.

    Args:
        fail_on: The least severity that stops training: ``info``, ``warning``, ``error``, or ``never``.
        fix: Whether to apply safe fixes first. This needs a run with one process: in other runs, wrappers have already read
            the model.
        report_to: A function that receives numbers: the summary of the audit, and the counts of the watch. None passes the
            summary to Trainer's own loggers.
        timeout: Seconds that a rank waits for the others.
        watch: Optimizer steps to watch, 2 or more; 0 watches none. The report on them is logged once, and stops nothing.
        **options: As for ``kbitlint.check``: ``select``, ``ignore``, ``context``, ``trace``.

    Raises:
        KbitlintError: ``fail_on`` is no severity, ``watch`` is wrong, or an option is.
    """

    def __init__(
        self,
        fail_on: str | Severity = "error",
        fix: bool = False,  # noqa: FBT001, FBT002  # users may pass it by position
        report_to: Callable[[dict[str, float]], object] | None = None,
        *,
        timeout: float = DEFAULT_TIMEOUT,
        watch: int = 0,
        **options: Any,
    ) -> None:
        self._gate = Gate(fail_on, fix=fix, report_to=report_to, timeout=timeout, watch=watch, options=options)
        self._watch: Watch | None = None
        self._optimizer: Any = None
        self._accelerator: Any = None
        self._unlogged: tuple[Any, dict[str, float]] | None = None

    @property
    def report(self) -> Report | None:
        """Return the report of the last audit; None before the first."""
        return self._gate.report

    @property
    def watched(self) -> WatchReport | None:
        """Return the report on the first steps; None until they are over."""
        return self._gate.watched

    def on_train_begin(self, args: Any, state: Any, control: Any, **prepared: Any) -> None:  # noqa: ARG002  # Trainer passes control
        """Audit the model and write the report.

        Raises:
            NotReadyError: A violation has at least the severity ``fail_on``, or an audit failed.
        """
        trainer = _calling("Trainer", "train")
        run = _run(args, state, trainer, prepared.get("model"), prepared.get("optimizer"))

        def log(report: Report, complete: bool) -> None:  # noqa: FBT001  # as the gate passes it
            self._log(trainer if complete else None, state, report)

        self._gate.audit(run, log)
        self._watch, self._optimizer = self._gate.watch(run), prepared.get("optimizer")
        self._accelerator = getattr(trainer, "accelerator", None)

    def _log(self, trainer: Any, state: Any, report: Report) -> None:
        """Log the summary on every rank, as Trainer does: the ``log`` of some trainers gathers values from all ranks.

        If a rank is lost, that gather would wait for it. ``trainer`` is then None, and the summary is in the state only.
        Other callbacks may not have begun yet, so that a run that goes on logs at its first step.
        """
        numbers = summary(report)
        if trainer is not None and not self._gate.stops(report):
            self._unlogged = (trainer, numbers)
            return
        with contextlib.suppress(Exception):  # a callback that has not begun must not hide the report
            if trainer is not None:
                trainer.log(dict(numbers))
                return
        state.log_history.append({**numbers, "step": state.global_step})  # also if a user's own loop calls the event

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        """Log the summary of a run that goes on."""
        if self._unlogged is not None:
            trainer, numbers = self._unlogged
            self._unlogged = None
            trainer.log(dict(numbers))

    def on_pre_optimizer_step(self, *_: Any, **__: Any) -> None:
        """Read the gradients of a step that is watched."""
        if self._watch is not None:
            self._watch.gradients(group["lr"] for group in getattr(self._optimizer, "param_groups", ()))

    def on_optimizer_step(self, *_: Any, **__: Any) -> None:
        """Count a step that is watched, and report after the last of them."""
        if self._watch is not None:
            self._watch.stepped(skipped=bool(getattr(self._accelerator, "optimizer_step_was_skipped", False)))
            self._watch = None if self._watch.done else self._watch

    def on_train_end(self, *_: Any, **__: Any) -> None:
        """Report on the steps of a run that has fewer than were to be watched."""
        if self._watch is not None:
            self._watch.finish()
        self._watch = self._optimizer = self._accelerator = None


def _run(args: Any, state: Any, trainer: Any, model: Any, optimizer: Any) -> Run:
    """Return the run of a Trainer; without one, that of the arguments."""
    accelerator, wrapped = getattr(trainer, "accelerator", None), getattr(trainer, "model_wrapped", None)
    context = TrainingContext.from_trainer(SimpleNamespace(args=args, model=model, accelerator=accelerator))
    return Run(
        model,
        model if wrapped is None else wrapped,
        optimizer,
        context,
        trainer,
        enters_training=True,  # as Trainer does before each step
        first=state.is_world_process_zero,
        folder=Path(args.output_dir),
    )


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
