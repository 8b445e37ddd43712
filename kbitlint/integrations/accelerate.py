"""An audit of a loop that is written with accelerate, after ``prepare`` and before the first step.

model, optimizer, loader = accelerator.prepare(model, optimizer, loader)
audit = check(accelerator, model, optimizer, watch=3)
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from kbitlint.context import TrainingContext
from kbitlint.integrations.exchange import DEFAULT_TIMEOUT
from kbitlint.integrations.gate import Gate, Run, summary

if TYPE_CHECKING:
    from collections.abc import Callable

    from kbitlint.integrations.watch import Watch
    from kbitlint.violation import Severity


def check(  # noqa: PLR0913  # those of the callback for Trainer
    accelerator: Any,
    model: Any,
    optimizer: Any = None,
    *,
    fail_on: str | Severity = "error",
    fix: bool = False,
    report_to: Callable[[dict[str, float]], object] | None = None,
    timeout: float = DEFAULT_TIMEOUT,
    watch: int = 0,
    output_dir: str | Path | None = None,
    **options: Any,
) -> Gate:
    """Audit a prepared model and its optimizer on every rank; call it on all of them.

    Args:
        accelerator: The ``accelerate.Accelerator`` of the loop.
        model: The model that its ``prepare`` returned.
        optimizer: The optimizer that its ``prepare`` returned; None compares no parameters, and cannot be watched.
        fail_on: The least severity that raises: ``info``, ``warning``, ``error``, or ``never``.
        fix: Whether to apply safe fixes first. This needs a run with one process.
        report_to: A function that receives numbers: the summary of the audit, and the counts of the watch. None passes the
            summary to the accelerator's trackers.
        timeout: Seconds that a rank waits for the others.
        watch: Optimizer steps to watch, 2 or more; 0 watches none. The report on them is logged once, and stops nothing.
        output_dir: The folder for the reports; None for the accelerator's ``project_dir``, if it has one.
        **options: As for ``kbitlint.check``.

    Returns:
        The audit: ``report``, and ``watched`` as soon as the steps are over.

    Raises:
        NotReadyError: A violation has at least the severity ``fail_on``, or an audit failed.
        KbitlintError: An option is wrong, or steps are to be watched without an optimizer.
    """
    gate = Gate(fail_on, fix=fix, report_to=report_to, timeout=timeout, watch=watch, options=options)
    gate.needs_optimizer(optimizer)
    folder = output_dir or getattr(accelerator, "project_dir", None)
    run = Run(
        accelerator.unwrap_model(model, keep_torch_compile=False),
        model,
        optimizer,
        TrainingContext.from_accelerator(accelerator),
        first=accelerator.is_main_process,
        folder=None if folder is None else Path(folder),
    )
    gate.audit(run, lambda report, _: accelerator.log(summary(report)) if getattr(accelerator, "trackers", ()) else None)
    watching = gate.watch(run)
    if watching is not None:
        _follow(accelerator, optimizer, watching)
    return gate


def _follow(accelerator: Any, optimizer: Any, watching: Watch) -> None:
    """Let an optimizer pass its steps to a watch until its report is out. The method of the class is then back.

    The optimizer may be accelerate's wrapper: its ``step`` does nothing while gradients accumulate.
    """
    step = optimizer.step

    def watched_step(*arguments: Any, **keywords: Any) -> Any:
        complete = bool(getattr(accelerator, "sync_gradients", True))
        if complete:
            watching.gradients(group["lr"] for group in optimizer.param_groups)
        result = step(*arguments, **keywords)
        if complete:
            watching.stepped(skipped=bool(getattr(optimizer, "step_was_skipped", False)))
        if watching.done and vars(optimizer).get("step") is watched_step:
            del optimizer.step
        return result

    optimizer.step = watched_step
