"""The values of a DeepSpeed configuration that transformers compares with its TrainingArguments.

Source: ``HfTrainerDeepSpeedConfig`` of transformers 5.23, integrations/deepspeed.py, as in 4.38. It compares them when the
arguments are made, and raises a ValueError when DeepSpeed is set up.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kbitlint.facts.values import UNKNOWN, Style
from kbitlint.lazy_dataclass import dataclass

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from kbitlint.facts.training import Training
    from kbitlint.facts.values import Call, Value

#: dotted key -> the arguments that transformers compares it with
_COMPARED = {
    "train_micro_batch_size_per_gpu": ("per_device_train_batch_size",),
    "gradient_accumulation_steps": ("gradient_accumulation_steps",),
    "gradient_clipping": ("max_grad_norm",),
    "optimizer.params.lr": ("learning_rate",),
    "optimizer.params.betas": ("adam_beta1", "adam_beta2"),
    "optimizer.params.eps": ("adam_epsilon",),
    "optimizer.params.weight_decay": ("weight_decay",),
    "scheduler.params.warmup_max_lr": ("learning_rate",),
    "fp16.enabled": ("fp16", "fp16_full_eval"),
    "bf16.enabled": ("bf16", "bf16_full_eval"),
}
#: the defaults of transformers.TrainingArguments 5.23, as in 4.38
_DEFAULTS: Mapping[str, Value] = {
    "per_device_train_batch_size": 8,
    "gradient_accumulation_steps": 1,
    "max_grad_norm": 1.0,
    "learning_rate": 5e-5,
    "adam_beta1": 0.9,
    "adam_beta2": 0.999,
    "adam_epsilon": 1e-8,
    "weight_decay": 0.0,
} | dict.fromkeys(("fp16", "fp16_full_eval", "bf16", "bf16_full_eval"), False)


@dataclass(frozen=True, slots=True)
class Mismatch:
    """A value of a DeepSpeed configuration that differs from that of the arguments."""

    key: str
    """The dotted key of the configuration."""
    fixed: Value
    argument: str
    value: Value


def mismatches(training: Training) -> Iterator[Mismatch]:
    """Yield each difference for which transformers raises, as far as both sides are known."""
    given = training.arguments
    if given is None or given.style is not Style.CALL or not given.callee.startswith(("transformers.", "trl.")):
        return
    searched = given.value("auto_find_batch_size", False) is not False  # noqa: FBT003  # the default of the argument
    for key, fixed in training.deepspeed:
        names = _COMPARED.get(key, ())
        values = tuple(_value(given, name) for name in names)
        if not names or fixed == "auto" or UNKNOWN in values or (searched and key == "train_micro_batch_size_per_gpu"):
            continue
        pair = key.endswith("betas")
        value = values if pair else any(values) if key.endswith("enabled") else values[0]
        if isinstance(value, (bool, int, float, tuple)) and value != fixed:
            yield Mismatch(key, fixed, names[0], value)
    if not searched:
        yield from _whole_batch(training, given)


def _whole_batch(training: Training, given: Call) -> Iterator[Mismatch]:
    """Yield a batch of all ranks that no number of ranks gives."""
    total = dict(training.deepspeed).get("train_batch_size")
    rows, rounds = (_value(given, name) for name in ("per_device_train_batch_size", "gradient_accumulation_steps"))
    if type(total) is int and type(rows) is int and type(rounds) is int and (each := rows * rounds) > 0 and total % each:
        yield Mismatch("train_batch_size", total, "per_device_train_batch_size", each)


def _value(given: Call, name: str) -> Value:
    """Return an argument where the call writes it; UNKNOWN if it may be set elsewhere, or if a subclass has a default."""
    argument = given.argument(name)
    if argument is None:
        own = given.complete and given.callee in ("transformers.TrainingArguments", "transformers.Seq2SeqTrainingArguments")
        return _DEFAULTS[name] if own else UNKNOWN
    inside = given.span.start <= argument.whole.start and argument.whole.end <= given.span.end
    return argument.value if inside else UNKNOWN
