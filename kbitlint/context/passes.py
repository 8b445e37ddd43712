"""The passes of a run without gradients, as a live Trainer sets them: its evaluation, and the generation of TRL's trainers."""

from __future__ import annotations

from typing import Any

from kbitlint.step_plan import Evaluation, Generation, Passes


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
