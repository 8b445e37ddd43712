"""Values of training arguments that transformers makes an enumeration of: transformers 5.23, ``trainer_utils.py``."""

from __future__ import annotations

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
CHOICES = {
    "lr_scheduler_type": ("SchedulerType", _SCHEDULES, "cosin"),
    "save_strategy": ("SaveStrategy", ("no", "steps", "epoch", "best"), "step"),
    "logging_strategy": ("IntervalStrategy", ("no", "steps", "epoch"), "step"),
    "eval_strategy": ("IntervalStrategy", ("no", "steps", "epoch"), "epochs"),
    "hub_strategy": ("HubStrategy", ("end", "every_save", "checkpoint", "all_checkpoints"), "always"),
}
