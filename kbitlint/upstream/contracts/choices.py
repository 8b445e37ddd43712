"""Values of training arguments that transformers makes an enumeration of: transformers 5.23, ``trainer_utils.py``."""

from __future__ import annotations

from kbitlint.upstream.contracts.rows import Contract

#: the values of ``transformers.SchedulerType``
_SCHEDULES = (
    "linear",
    "cosine",
    "cosine_with_restarts",
    "polynomial",
    "constant",
    "constant_with_warmup",
    "inverse_sqrt",
    "reduce_lr_on_plateau",
    "cosine_with_min_lr",
    "cosine_warmup_with_min_lr",
    "warmup_stable_decay",
    "greedy",
)
#: argument -> the enumeration that transformers makes of it, its values, and a misspelt one
_CHOICES = {
    "lr_scheduler_type": ("SchedulerType", _SCHEDULES, "cosin"),
    "save_strategy": ("SaveStrategy", ("no", "steps", "epoch", "best"), "step"),
    "logging_strategy": ("IntervalStrategy", ("no", "steps", "epoch"), "step"),
    "eval_strategy": ("IntervalStrategy", ("no", "steps", "epoch"), "epochs"),
    "hub_strategy": ("HubStrategy", ("end", "every_save", "checkpoint", "all_checkpoints"), "always"),
}
#: (argument, values that are refused, message, exception, example) of each number that training stops at
_RANGES = (
    ("per_device_train_batch_size", "== 0", "batch_size should be a positive integer value, but got", "ValueError", "0"),
    ("learning_rate", "< 0", "Invalid learning rate:", "ValueError", "-1e-4"),
    ("gradient_accumulation_steps", "== 0", "by zero", "ZeroDivisionError", "0"),
)
#: what ``report_to`` of a Trainer may name (``integrations/integration_utils.py``)
_REPORTS = (
    *("azure_ml", "comet_ml", "mlflow", "neptune", "tensorboard", "trackio", "wandb", "codecarbon", "clearml", "dagshub"),
    *("flyte", "dvclive", "swanlab", "kubeflow", "all", "none"),
)
_ARGUMENTS = ("transformers.TrainingArguments", "transformers.Seq2SeqTrainingArguments", "trl.*Config")
_TRAINERS = ("transformers.Trainer", "transformers.Seq2SeqTrainer", "trl.*Trainer")
CHOICE_ROWS = (
    *(
        Contract(
            _ARGUMENTS,
            f"text({name}) and {name} not in {values!r}",
            f"is not a valid {kind}, please select one of",
            drops=name,
            example=f"{name}='{wrong}'",
        )
        for name, (kind, values, wrong) in _CHOICES.items()
    ),
    *(
        Contract(
            (*_ARGUMENTS[:2], "trl.SFTConfig", "trl.DPOConfig"),
            f"number({name}) and {name} {refused}",
            message,
            raises,
            name,
            moment="when it trains",
            example=f"{name}={example}, use_cpu=True",
        )
        for name, refused, message, raises, example in _RANGES
    ),
    Contract(
        _TRAINERS,
        f"text(args.report_to) and args.report_to not in {_REPORTS!r}",
        "is not supported, only azure_ml, comet_ml, mlflow, neptune, tensorboard, trackio, wandb, codecarbon",
        drops="args.report_to",
        since="5",
    ),
)
