"""The passes of a run without gradients, as a live Trainer sets them: its evaluation, and the generation of TRL's trainers."""

from __future__ import annotations

from typing import Any

from kbitlint.step_plan import Evaluation, Generation, Passes

#: events of callbacks before the first step, names with which their code casts a model, and libraries whose callbacks do not
_BEGINNINGS = ("on_train_begin", "on_epoch_begin", "on_step_begin")
_CASTS = frozenset(["to", "half", "float", "bfloat16", "double"])
_LIBRARIES = frozenset(["transformers", "trl", "peft", "accelerate", "kbitlint"])


def passes_of(trainer: Any) -> Passes:
    """Return the passes of a Trainer.

    Sources: ``Trainer.evaluation_loop`` and ``EvalLoopContainer`` of transformers 5.23, ``GRPOTrainer`` of TRL 1.16.
    """
    return Passes(_evaluation(trainer), _generation(trainer))


def _evaluation(trainer: Any) -> Evaluation | None:
    """Return the evaluation of a Trainer; None if it has no data for one.

    Logits are kept for the metrics. ``preprocess_logits_for_metrics`` may keep less of them, so what it keeps is unknown.
    """
    batch, data = _count(trainer.args, "per_device_eval_batch_size"), getattr(trainer, "eval_dataset", None)
    if batch is None or data is None:
        return None
    metrics = getattr(trainer, "compute_metrics", None) is not None
    if not metrics or getattr(trainer.args, "prediction_loss_only", False):
        return Evaluation(batch)
    if getattr(trainer, "preprocess_logits_for_metrics", None) is not None:
        return Evaluation(batch, 0, "what preprocess_logits_for_metrics keeps is not counted")
    every = _count(trainer.args, "eval_accumulation_steps")
    batches = max((-(-_length(one) // batch) for one in (data.values() if isinstance(data, dict) else (data,))), default=0)
    kept = min(every or batches, batches)
    how = f"eval_accumulation_steps={every}" if every else "no eval_accumulation_steps"
    joins = bool(getattr(trainer.args, "eval_do_concat_batches", True))
    return Evaluation(batch, kept, f"logits of {kept} batches kept, {how}", batches, joins)


def evaluates(trainer: Any) -> bool | None:
    """Return whether a Trainer evaluates before its last step, and saves no checkpoint right after; None if that is unknown.

    A checkpoint reads the whole state of the model, which undoes changes that layers make for the evaluation.
    """
    arguments = trainer.args
    kind, saved = (_text(getattr(arguments, name, "no")) for name in ("eval_strategy", "save_strategy"))
    if getattr(trainer, "eval_dataset", None) is None:
        return False
    if getattr(arguments, "eval_on_start", False):
        return True
    total, epoch = _steps(trainer)
    if kind not in ("steps", "epoch") or saved == "best" or total is None:
        return False if kind == "no" else None
    every, stored = getattr(arguments, "eval_steps", None), getattr(arguments, "save_steps", None)
    if kind == "epoch":
        return saved != "epoch" and epoch is not None and epoch < total
    if not isinstance(every, (int, float)) or isinstance(every, bool):
        return None
    every = every * total if every < 1 else every
    together = saved == "steps" and isinstance(stored, int) and stored > 0 and every % stored == 0
    return every < total and not together


def cast_by(trainer: Any) -> str | None:
    """Return the method of a callback of the user's own that may cast the model before the first step; None if none does."""
    for callback in getattr(getattr(trainer, "callback_handler", None), "callbacks", None) or ():
        cls = type(callback)
        for name in _BEGINNINGS if cls.__module__.partition(".")[0] not in _LIBRARIES else ():
            code = getattr(getattr(cls, name, None), "__code__", None)
            if code is not None and _CASTS.intersection(code.co_names):
                return f"{cls.__name__}.{name}"
    return None


def _steps(trainer: Any) -> tuple[float | None, float | None]:
    """Return the steps of a run and of one epoch; each None if it is unknown. See ``Trainer.set_initial_training_values``."""
    arguments, data = trainer.args, getattr(trainer, "train_dataset", None)
    rows = (_count(arguments, "train_batch_size") or 1) * (_count(arguments, "world_size") or 1)
    batches = -(-_length(data) // rows)
    epoch = max(batches // (_count(arguments, "gradient_accumulation_steps") or 1), 1) if batches else None
    epochs = getattr(arguments, "num_train_epochs", None)
    of_epochs = epochs * epoch if epoch is not None and isinstance(epochs, (int, float)) else None
    return _count(arguments, "max_steps") or of_epochs, epoch


def _text(value: Any) -> str:
    return str(getattr(value, "value", value))


def _generation(trainer: Any) -> Generation | None:
    """Return the generation of a Trainer; None if it generates nothing, or in another engine.

    TRL's online trainers hold a ``generation_config``. Where ``steps_per_generation`` is set, a batch counts completions (GRPO,
    RLOO); else it counts prompts, each of which gets ``num_generations`` completions (OnlineDPO).
    """
    arguments = trainer.args
    completion = _count(arguments, "max_completion_length") or _count(arguments, "max_new_tokens")
    batch = _count(arguments, "per_device_train_batch_size")
    if (
        completion is None
        or batch is None
        or getattr(arguments, "use_vllm", False)
        or not hasattr(trainer, "generation_config")
    ):
        return None
    times = _count(arguments, "steps_per_generation") or _count(trainer, "num_generations") or 1
    return Generation(batch * times, completion, _count(arguments, "max_prompt_length"))


def rows_of_an_example(trainer: Any) -> int:
    """Return the rows of a batch for each of its examples: a pair of answers is two rows (TRL's collators for preferences)."""
    collator = type(getattr(trainer, "data_collator", None))
    paired = collator.__module__.startswith("trl.") and collator.__name__.endswith("Preference")
    return 2 if paired and "Unpaired" not in collator.__name__ else 1


def _length(data: Any) -> int:
    return len(data) if hasattr(data, "__len__") else 0


def _count(arguments: Any, name: str) -> int | None:
    value = getattr(arguments, name, None)
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None
