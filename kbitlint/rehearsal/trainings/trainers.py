"""Trainers of transformers and TRL: they run as they are until their first training step, which is audited."""

from __future__ import annotations

import functools
import sys
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from kbitlint.rehearsal.inside.artefacts import is_of_call
from kbitlint.rehearsal.inside.imports import replace
from kbitlint.rehearsal.stand_ins.adapters import is_without_weights
from kbitlint.rehearsal.trainings.audits import audit_training
from kbitlint.rehearsal.trainings.training_end import finish

if TYPE_CHECKING:
    from kbitlint.rehearsal.inside.record import Record


class TrainingReached(BaseException):  # it leaves the loop of a Trainer, past every `except Exception`
    """A Trainer's first training step.

    Args:
        trainer: The Trainer.
        inputs: The batch, as the collator made it.
    """

    def __init__(self, trainer: Any, inputs: Any) -> None:
        super().__init__("a training step")
        self.trainer, self.inputs = trainer, inputs


def install(record: Record, module: Any) -> None:
    """Let ``Trainer.train`` end at its first step, until the process ends."""
    trainer = module.Trainer
    replace(trainer, "training_step", lambda original: _step(record, original, trainer))
    replace(trainer, "train", lambda original: _train(record, original, module.TrainOutput))
    replace(module, "get_reporting_integration_callbacks", lambda original: _reports(record, original))


def install_arguments(record: Record, module: Any) -> None:
    """Let training arguments go on without packages that are not installed, until the process ends."""
    replace(module.TrainingArguments, "__post_init__", lambda original: _arguments(record, original))


#: an argument that needs a package -> the package, and the value without it
_NEEDING: dict[str, tuple[str, Any]] = {
    "deepspeed": ("deepspeed", None),
    "use_liger_kernel": ("liger_kernel", False),
    "use_vllm": ("vllm", False),
}


def _arguments(record: Record, original: Any) -> Any:
    """Return the check of training arguments, which go on without a package that is not installed here."""

    @functools.wraps(original)
    def __post_init__(self: Any) -> None:  # noqa: N807  # the name that dataclasses call
        for name, (package, without) in _NEEDING.items():
            if getattr(self, name, None) and find_spec(package) is None and not record.paused:
                setattr(self, name, without)
                record.skip(f"{name} needs {package}, which is not installed here: rehearsed without it")
        original(self)

    return __post_init__


def _step(record: Record, original: Any, base: Any) -> Any:
    @functools.wraps(original)
    def training_step(self: Any, model: Any, inputs: Any, *arguments: Any, **options: Any) -> Any:
        if record.paused:
            return original(self, model, inputs, *arguments, **options)
        inputs = _prepared(record, self, inputs, base)
        if is_without_weights(model):
            _compute_loss(record, self, model, inputs, arguments[0] if arguments else options.get("num_items_in_batch"))
        raise TrainingReached(self, inputs)

    return training_step


def _prepared(record: Record, trainer: Any, inputs: Any, base: Any) -> Any:
    """Return the batch as the Trainer prepares it. Trainers that generate call the user's reward functions there."""
    if type(trainer)._prepare_inputs is base._prepare_inputs:  # noqa: SLF001  # Trainer's own hook
        return trainer._prepare_inputs(inputs)  # noqa: SLF001  # see above
    try:
        trainer._prepare_inputs(inputs)  # noqa: SLF001  # see above
    except Exception as error:
        if record.users_frame(error) is not None or is_of_call(error):
            raise  # otherwise it may come from missing weights
    return inputs


def _compute_loss(record: Record, trainer: Any, model: Any, inputs: Any, items: Any) -> None:
    """Call the method that computes the loss, if it is Trainer's own or the user's: the model answers without weights."""
    owner = next(cls for cls in type(trainer).__mro__ if "compute_loss" in vars(cls))
    if owner.__module__ == "transformers.trainer" or record.is_users(sys.modules[owner.__module__].__file__ or ""):
        trainer.compute_loss(model, dict(inputs), num_items_in_batch=items)


def _train(record: Record, original: Any, output: Any) -> Any:
    @functools.wraps(original)
    def train(self: Any, *arguments: Any, **options: Any) -> Any:
        line = record.line()
        record.trainers.append(self)
        try:
            return original(self, *arguments, **options)
        except TrainingReached as reached:
            if reached.trainer is not self:
                raise
            inputs = reached.inputs if isinstance(reached.inputs, dict) or hasattr(reached.inputs, "keys") else {}
        finally:
            record.trainers.remove(self)
        audit_training(record, self, _named(inputs), self.optimizer, line)
        return finish(record, self, output)

    return train


def _named(inputs: Any) -> dict[str, Any]:
    """Return the batch by the names of the model's arguments. Trainers of preferences name their parts otherwise."""
    held = dict(inputs)
    for name in ("chosen", "completion"):
        if "input_ids" not in held and f"{name}_input_ids" in held:
            held["input_ids"] = held[f"{name}_input_ids"]
            held["attention_mask"] = held.get(f"{name}_attention_mask")
            held["labels"] = held.get(f"{name}_labels", held["input_ids"])
    if "labels" not in held and "input_ids" in held:
        held["labels"] = held["input_ids"]
    return held


def _reports(record: Record, original: Any) -> Any:
    @functools.wraps(original)
    def callbacks(report_to: Any) -> list[Any]:
        if report_to:
            names = ", ".join([report_to] if isinstance(report_to, str) else map(str, report_to))
            record.switch_off(f"reports to {names}")
        return []

    return callbacks
