"""A callback for Lightning: it audits the model inside the LightningModule that is about to train.

trainer = lightning.Trainer(callbacks=[KbitlintCallback(watch=3)], ...)
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from kbitlint.context import Strategy, TrainingContext
from kbitlint.integrations.exchange import DEFAULT_TIMEOUT
from kbitlint.integrations.gate import Gate, Run, summary

try:
    from lightning.pytorch.callbacks import Callback
except ModuleNotFoundError:  # the package of the same code under its older name
    from pytorch_lightning.callbacks import Callback  # type: ignore[assignment,no-redef,unused-ignore]

if TYPE_CHECKING:
    from collections.abc import Callable

    from kbitlint.integrations.watch import Watch, WatchReport
    from kbitlint.report import Report
    from kbitlint.violation import Severity

#: Trainer(precision=...) -> the dtype of autocast; the ``-true`` ones cast the model and open no region
_AUTOCAST = {
    "16-mixed": "float16",
    "bf16-mixed": "bfloat16",
    "32-true": "float32",
    "bf16-true": "float32",
    "16-true": "float32",
}


class KbitlintCallback(Callback):  # type: ignore[misc]  # Lightning is Any to mypy here
    """A callback that audits the model and its optimizer before the first step, on every rank.

    The audited model is the LightningModule, or the one inside it that holds all of its parameters.

    Args:
        fail_on: The least severity that stops training: ``info``, ``warning``, ``error``, or ``never``.
        report_to: A function that receives numbers: the summary of the audit, and the counts of the watch. None passes the
            summary to the Trainer's loggers.
        timeout: Seconds that a rank waits for the others.
        watch: Optimizer steps to watch, 2 or more; 0 watches none. The report on them is logged once, and stops nothing.
        **options: As for ``kbitlint.check``.

    Raises:
        KbitlintError: ``fail_on`` is no severity, ``watch`` is wrong, or an option is.
    """

    def __init__(
        self,
        fail_on: str | Severity = "error",
        report_to: Callable[[dict[str, float]], object] | None = None,
        *,
        timeout: float = DEFAULT_TIMEOUT,
        watch: int = 0,
        **options: Any,
    ) -> None:
        self._gate = Gate(fail_on, report_to=report_to, timeout=timeout, watch=watch, options=options)
        self._watch: Watch | None = None
        self._scale: float | None = None

    @property
    def report(self) -> Report | None:
        """Return the report of the audit; None before it."""
        return self._gate.report

    @property
    def watched(self) -> WatchReport | None:
        """Return the report on the first steps; None until they are over."""
        return self._gate.watched

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Audit the model and write the report.

        Raises:
            NotReadyError: A violation has at least the severity ``fail_on``, or an audit failed.
        """
        model = model_inside(pl_module)
        wrapped = model if trainer.strategy.model is pl_module else trainer.strategy.model
        optimizer = trainer.optimizers[0] if len(trainer.optimizers) == 1 else None  # each of several holds a part
        run = Run(
            model,
            wrapped,
            optimizer,
            _context(trainer),
            first=trainer.is_global_zero,
            folder=Path(trainer.log_dir or trainer.default_root_dir),
        )

        def log(report: Report, _: bool) -> None:  # noqa: FBT001  # as the gate passes it
            for logger in trainer.loggers:
                logger.log_metrics(summary(report), step=trainer.global_step)

        self._gate.audit(run, log)
        self._watch = self._gate.watch(run)

    def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:  # noqa: ARG002  # Lightning's signature
        """Read the gradients of a step that is watched; the scaler has unscaled them."""
        if self._watch is not None:
            self._scale = _scale(trainer)
            self._watch.gradients(group["lr"] for group in optimizer.param_groups)

    def on_train_batch_end(self, trainer: Any, *_: Any, **__: Any) -> None:
        """Count a step that is watched, and report after the last of them."""
        if self._watch is not None:
            scale = _scale(trainer)
            self._watch.stepped(skipped=scale is not None and self._scale is not None and scale < self._scale)
            self._watch = None if self._watch.done else self._watch

    def on_train_end(self, *_: Any, **__: Any) -> None:
        """Report on the steps of a run that has fewer than were to be watched."""
        if self._watch is not None:
            self._watch.finish()
        self._watch = None


def model_inside(module: Any) -> Any:
    """Return the innermost module that holds all parameters of a LightningModule, down to a model of transformers or PEFT."""
    every = {id(parameter) for parameter in module.parameters()}
    while every and not _is_model(module):
        inside = [child for child in module.children() if every <= {id(parameter) for parameter in child.parameters()}]
        if not inside:
            break
        module = inside[0]
    return module


def _is_model(module: Any) -> bool:
    return bool({"PreTrainedModel", "PeftModel"} & {base.__name__ for base in type(module).__mro__})


def _scale(trainer: Any) -> float | None:
    """Return the scale of the gradient scaler; it falls where a step was skipped. None without a scaler."""
    scaler = getattr(trainer.precision_plugin, "scaler", None)
    return None if scaler is None else float(scaler.get_scale())


def _context(trainer: Any) -> TrainingContext:
    """Return the context of a Lightning Trainer. Since 2.2 it leaves the mode of each module as it was."""
    device = trainer.strategy.root_device
    return TrainingContext(
        autocast_dtype=_AUTOCAST.get(str(trainer.precision)),
        grad_scaler=getattr(trainer.precision_plugin, "scaler", None) is not None,
        strategy=Strategy.SINGLE if trainer.world_size == 1 else None,  # wrappers name the others
        sets_training_mode=False,
        world_size=trainer.world_size,
        device=None if device.type == "cpu" else str(device),
    )
