"""The target of a measurement: its model, its context with a batch and a length, and its spread over cards."""

from __future__ import annotations

import dataclasses
import numbers
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kbitlint.audit.options import is_left_out
from kbitlint.audit.run import context_of, model_of
from kbitlint.context.launch import Launch
from kbitlint.context.strategy import Strategy
from kbitlint.errors import KbitlintError, TargetError

if TYPE_CHECKING:
    from kbitlint.audit.open import OpenTarget
    from kbitlint.audit.options import Options
    from kbitlint.context import TrainingContext

_CONFIGS = ("config.json", "adapter_config.json")


#: arguments that are whole numbers -> the least
_LEAST = {"batch": 1, "seq_len": 2, "gpus": 1, "accumulation": 1, "every": 2}
_WORDS = ("gpu", "lora", "optimizer", "strategy", "checkpointing", "loss", "attention")


def refuse_wrong_types(**given: Any) -> None:
    """Raise KbitlintError if an argument of a measurement has a wrong type, or a number is too small."""
    for name, value in given.items():
        least = _LEAST.get(name)
        if value is None:
            continue
        if least is not None and (not isinstance(value, numbers.Integral) or isinstance(value, bool)):
            raise KbitlintError(f"{name} must be a whole number, not {value!r}")
        if least is not None and value < least:
            raise KbitlintError(f"{name} must be {least} or more, not {value}")
        if name in _WORDS and not isinstance(value, str):
            raise KbitlintError(f"{name} must be a string, not {value!r}")


def refuse_second_batch(options: Options, **given: Any) -> None:
    """Raise KbitlintError if the caller passes a batch, and says as well how large another one is."""
    told = [name for name, value in given.items() if value is not None]
    if told and (options.inputs is not None or options.step is not None):
        raise KbitlintError(f"{told[0]} is that of the batch in inputs: pass one of both")


def context_of_target(opened: OpenTarget, options: Options, *, spread: bool) -> TrainingContext:
    """Return the context of an open target. A live Trainer gives what the options leave open.

    Args:
        opened: The target.
        options: ``context`` is that of the caller.
        spread: Whether the caller says over how many cards the run is spread, or how.

    Raises:
        KbitlintError: The caller's context names a strategy for several cards, and nothing says how many there are.
    """
    context = options.context if opened.live is None else context_of(opened.live, options.context)
    given = options.context.strategy
    if not spread and given not in (None, Strategy.SINGLE) and context.world_size is None:
        raise KbitlintError(f"the training is spread over cards ({given.value}), and nothing says over how many: pass --gpus N")
    return context


def launch_of(strategy: str | None, gpus: int | None, context: TrainingContext, *, offload: bool) -> Launch:
    """Return how a run is spread over cards.

    Args:
        strategy: Its name; None for that of the context, or ``ddp`` for several cards.
        gpus: The cards; None for the ranks of the context, or 1.
        context: The context of the training.
        offload: Whether sharded weights lie in host memory; the context may say so too.

    Raises:
        KbitlintError: The strategy is unknown or does not go with the number of cards.
    """
    known = None if context.strategy is None else context.strategy.value
    ranks = gpus if gpus is not None else context.world_size or 1
    if strategy is None and ranks > 1:
        strategy = known if known not in (None, "single") else "ddp"
    offload = offload or (context.offload is True and strategy == known)
    return Launch(strategy or "single", ranks, offload)


def measurable(opened: OpenTarget, options: Options, shape: tuple[int | None, int | None]) -> tuple[Any, TrainingContext]:
    """Return the model of an open target, and the context with a batch and a length.

    Args:
        opened: The target.
        options: ``context`` gives the batch that ``shape`` leaves open.
        shape: (sequences, tokens a sequence); None for those of the context.

    Raises:
        TargetError: The target holds no model, or is a function that must not run.
    """
    target = opened.target
    if is_left_out(target, options):
        raise TargetError(target.text, "is a function, and functions are not run (run=False)")
    if opened.live is None:
        raise TargetError(target.text, f"holds no model whose memory could be measured{_models_below(Path(target.text))}")
    context = context_of(opened.live, options.context)
    batch, seq_len = (given or known for given, known in zip(shape, (context.batch_size, context.seq_len), strict=True))
    return model_of(opened.live), dataclasses.replace(context, batch_size=batch, seq_len=seq_len)


def _models_below(folder: Path) -> str:
    """Return a hint at the checkpoints among the entries of a folder; empty if there is none."""
    found = sorted(str(config.parent) for config in folder.glob("*/*config.json") if config.name in _CONFIGS)
    more = f" and {len(found) - 3} more" if len(found) > 3 else ""
    return f": name one of {', '.join(found[:3])}{more}" if found else ": name a script, or a folder with a config.json"
