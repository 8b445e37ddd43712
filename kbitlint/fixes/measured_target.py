"""The target of a measurement: its model, its context with a batch and a length, and its spread over cards."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kbitlint.audit.options import is_left_out
from kbitlint.audit.run import context_of, model_of
from kbitlint.context.launch import Launch
from kbitlint.errors import TargetError

if TYPE_CHECKING:
    from kbitlint.audit.open import OpenTarget
    from kbitlint.audit.options import Options
    from kbitlint.context import TrainingContext

_CONFIGS = ("config.json", "adapter_config.json")


def context_of_target(opened: OpenTarget, options: Options) -> TrainingContext:
    """Return the context of an open target. A live Trainer gives what the options leave open."""
    return options.context if opened.live is None else context_of(opened.live, options.context)


def launch_of(strategy: str | None, gpus: int | None, context: TrainingContext, *, offload: bool) -> Launch:
    """Return how a run is spread over cards.

    Args:
        strategy: Its name; None for that of the context, or ``ddp`` for several cards.
        gpus: The cards; None for the ranks of the context, or 1.
        context: The context of the training.
        offload: Whether sharded weights lie in host memory.

    Raises:
        KbitlintError: The strategy is unknown or does not go with the number of cards.
    """
    gpus = gpus if gpus is not None else context.world_size or 1
    if strategy is None and gpus > 1:
        known = None if context.strategy is None else context.strategy.value
        strategy = known if known not in (None, "single") else "ddp"
    return Launch(strategy or "single", gpus, offload)


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
