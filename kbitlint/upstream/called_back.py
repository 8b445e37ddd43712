"""Calls that transformers and TRL make to functions of a script: overridden methods, and functions given as arguments.

Read from the releases. ``tests/upstream/test_called_back.py`` compares the newest rows with real runs of the installed ones.
"""

from __future__ import annotations

from kbitlint.lazy_dataclass import dataclass


@dataclass(frozen=True, slots=True)
class LibraryCall:
    """One call of a script's function by a library."""

    name: str
    """The method that a subclass overrides, or the argument that takes the function."""
    positional: int
    """The number of positional arguments, without ``self``."""
    keywords: tuple[str, ...] = ()
    """The keywords of the call that a function has to take."""
    since: str = "0"
    """The first version of the library that calls so."""
    more: bool = False
    """Whether the call passes keywords that vary, so that the function has to take ``**kwargs``."""
    moment: str = "the first step"
    """The moment of the first call."""


#: what transformers.Trainer calls of itself in every run. 4.46 and 4.47 pass ``num_items_in_batch`` to some models only.
TRAINER_METHODS = (
    LibraryCall("compute_loss", 2, ("num_items_in_batch",), "4.48"),
    LibraryCall("training_step", 3, (), "4.46"),
    LibraryCall("log", 2, (), "4.47", moment="the first log"),
    LibraryCall("_get_train_sampler", 1, (), "4.52.4"),
    LibraryCall("_save_checkpoint", 2, (), "4.47", moment="the first checkpoint"),
)
#: what the callback handler of transformers calls; it passes the model, the optimizer and more as keywords
CALLBACK_METHODS = tuple(
    LibraryCall(name, 3, (), more=True, moment=moment)
    for name, moment in (
        ("on_init_end", "the construction of the Trainer"),
        ("on_train_begin", "the start of the training"),
        ("on_train_end", "the end of the training"),
        ("on_epoch_begin", "the first epoch"),
        ("on_epoch_end", "the end of the first epoch"),
        ("on_step_begin", "the first step"),
        ("on_substep_end", "the first step"),
        ("on_step_end", "the first step"),
        ("on_optimizer_step", "the first step"),
        ("on_pre_optimizer_step", "the first step"),
        ("on_log", "the first log"),
        ("on_save", "the first checkpoint"),
        ("on_evaluate", "the first evaluation"),
    )
)
#: functions that a Trainer of transformers is given
TRAINER_ARGUMENTS = (
    LibraryCall("data_collator", 1, moment="the first batch"),
    LibraryCall("compute_loss_func", 2, ("num_items_in_batch",), "4.46"),
    LibraryCall("compute_metrics", 1, moment="the first evaluation"),
    LibraryCall("preprocess_logits_for_metrics", 2, moment="the first evaluation"),
)
#: functions that a trainer of TRL is given besides
TRL_ARGUMENTS = (
    LibraryCall("formatting_func", 1, moment="the preparation of the dataset"),
    LibraryCall("reward_funcs", 0, ("prompts", "completions", "completion_ids"), "0.18", more=True),
)
