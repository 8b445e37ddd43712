"""Evaluation of models without weights: the loop and the user's metrics run on a few rows, and what they lack is made up."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

from kbitlint.rehearsal.inside.artefacts import is_of_call
from kbitlint.rehearsal.inside.imports import after_import, replace
from kbitlint.rehearsal.stand_ins.adapters import is_without_weights

if TYPE_CHECKING:
    from kbitlint.rehearsal.inside.record import Record

#: rows for which the user's metrics are computed
_ROWS = 8


class Metrics(dict):  # type: ignore[type-arg]  # of strings and numbers
    """The metrics of an evaluation that was not run. A metric of the library's own is made up when it is read."""

    def __init__(self, prefix: str, held: dict[str, float]) -> None:
        super().__init__(held)
        self._prefix = prefix

    def __missing__(self, name: str) -> float:
        if not isinstance(name, str) or not name.startswith(f"{self._prefix}_"):
            raise KeyError(name)
        return 1.0


def install(record: Record) -> None:
    """Replace ``evaluate`` of Trainer, and of the trainers of TRL that have one of their own, until the process ends."""
    after_import(
        "transformers.trainer", lambda module: replace(module.Trainer, "evaluate", functools.partial(_evaluate, record))
    )
    for name in ("sft_trainer", "dpo_trainer", "kto_trainer", "reward_trainer"):
        after_import(f"trl.trainer.{name}", lambda module: _of_trl(record, module))


def _of_trl(record: Record, module: Any) -> None:
    for owner in list(vars(module).values()):
        if isinstance(owner, type) and owner.__module__ == module.__name__ and "evaluate" in vars(owner):
            replace(owner, "evaluate", functools.partial(_evaluate, record))


def _evaluate(record: Record, original: Any) -> Any:
    @functools.wraps(original)
    def evaluate(self: Any, *arguments: Any, **options: Any) -> Any:
        given = arguments[0] if arguments else options.get("eval_dataset")
        known = self.eval_dataset if given is None else given
        if record.paused or known is None or not is_without_weights(self.model):  # the library says that it needs a data set
            return original(self, *arguments, **options)
        record.guessed = True
        record.stand_in("metrics of evaluations")
        prefix = arguments[2] if len(arguments) > 2 else options.get("metric_key_prefix", "eval")
        if self.compute_metrics is not None and not self.args.eval_accumulation_steps:
            found = _computed(record, self, original, known, (arguments[1:], {**options, "metric_key_prefix": prefix}))
            if found is not None:
                return Metrics(prefix, found)
        return _made_up(record, self, known, prefix)

    return evaluate


def _computed(record: Record, trainer: Any, original: Any, known: Any, call: tuple[Any, dict[str, Any]]) -> Any:
    """Return the metrics of a few rows; None if their values, which are made up, do not allow it."""
    further, options = call
    options = {key: value for key, value in options.items() if key != "eval_dataset"}
    if len(further) > 1:
        options.pop("metric_key_prefix")
    try:
        return original(trainer, _few(known), *further, **options)
    except Exception as error:
        frame = record.users_frame(error)
        if frame is not None and (isinstance(error, (ImportError, NameError)) or is_of_call(error)):
            raise
        return None


def _few(known: Any) -> Any:
    if isinstance(known, dict):
        return {name: _few(one) for name, one in known.items()}
    if hasattr(known, "select") and hasattr(known, "__len__"):
        return known.select(range(min(len(known), _ROWS)))
    return known


def _made_up(record: Record, trainer: Any, known: Any, prefix: str) -> Any:
    """Return metrics with the names of the library's own, and hand them to the log and the callbacks as it does."""
    if isinstance(known, dict):
        found: dict[str, float] = {}
        for name, one in known.items():
            found |= _made_up(record, trainer, one, f"{prefix}_{name}")
        return Metrics(prefix, found)
    names = ("loss", "runtime", "samples_per_second", "steps_per_second")
    metrics = Metrics(prefix, {f"{prefix}_{name}": 1.0 for name in names})
    try:
        trainer.log(metrics)
        trainer.control = trainer.callback_handler.on_evaluate(trainer.args, trainer.state, trainer.control, metrics)
    except Exception as error:
        if record.users_frame(error) is not None:
            raise
    metrics["epoch"] = 1.0
    return metrics
