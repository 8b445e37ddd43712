"""The end of a Trainer's training in a rehearsal: its own methods log, evaluate and save, with a loss that was made up."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kbitlint.model.build.checkpoint_config import major_version

if TYPE_CHECKING:
    from collections.abc import Callable

    from kbitlint.rehearsal.inside.record import Record


def finish(record: Record, trainer: Any, output: Any) -> Any:
    """Return the output of ``train``, and leave the Trainer as its last step does: with history, checkpoint and callbacks.

    Raises:
        Exception: A callback of the user's raises.
    """
    state, args = trainer.state, trainer.args
    record.guessed = True
    state.global_step = max(int(state.max_steps or 1), 1)
    state.epoch = float(args.num_train_epochs)
    _call(record, trainer, "on_step_end")
    _call(record, trainer, "on_epoch_end")
    if not _is_due(args.logging_strategy, state.logging_steps, state):
        state.log_history.append(_step_log(trainer, {"epoch": state.epoch, "step": state.global_step}))
    else:
        _quietly(record, lambda: trainer.log(_step_log(trainer, {})))
    if _is_due(args.eval_strategy, state.eval_steps, state):
        _quietly(record, lambda: trainer._determine_best_metric(trainer.evaluate(), None))  # noqa: SLF001  # as Trainer's loop does
    if str(getattr(args.save_strategy, "value", args.save_strategy)) != "no":
        _quietly(record, lambda: trainer._save_checkpoint(trainer.model, None))  # noqa: SLF001  # see above
        _call(record, trainer, "on_save")
    names = ["train_runtime", "train_samples_per_second", "train_steps_per_second", "train_loss"]
    summary = dict.fromkeys(names, 1.0)
    _quietly(record, lambda: trainer.log({**summary, "total_flos": 1.0}))
    _call(record, trainer, "on_train_end")
    trainer.is_in_train = False
    if major_version() < 5:
        summary["total_flos"] = 1.0
    return output(state.global_step, 1.0, {**summary, "epoch": state.epoch})


def _step_log(trainer: Any, further: dict[str, Any]) -> dict[str, Any]:
    return {"loss": 1.0, "grad_norm": 1.0, "learning_rate": trainer.args.learning_rate, **further}


def _is_due(strategy: Any, every: Any, state: Any) -> bool:
    """Return whether something that is done every few steps, or at the end of an epoch, is done before the last step."""
    name = str(getattr(strategy, "value", strategy))
    return name == "epoch" or (name == "steps" and bool(every) and every <= state.global_step)


def _call(record: Record, trainer: Any, event: str) -> None:
    """Call an event of the callbacks, the user's among them."""
    handler = trainer.callback_handler
    _quietly(record, lambda: getattr(handler, event)(trainer.args, trainer.state, trainer.control))


def _quietly(record: Record, act: Callable[[], Any]) -> None:
    """Act, and let only exceptions of the user's code through: those of the libraries may come from missing weights."""
    try:
        act()
    except Exception as error:
        if record.users_frame(error) is not None:
            raise
