"""A script's facts under the launch that the user names, which counts before the commands beside the script."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from kbitlint.context.strategy import Strategy
from kbitlint.facts.source import LaunchSign

if TYPE_CHECKING:
    from kbitlint.context import TrainingContext
    from kbitlint.facts.source import SourceFacts
    from kbitlint.facts.training import Training
    from kbitlint.facts.values import Value

_STAGES: dict[Strategy, Value] = {Strategy.ZERO2: 2, Strategy.ZERO3: 3}


def launched(facts: SourceFacts, context: TrainingContext) -> SourceFacts:
    """Return a script's facts under the context's strategy; unchanged if the context has none.

    Commands beside the script say nothing any more, and under a single process names such as LOCAL_RANK do not either.
    What the script's own training arguments ask for stays.
    """
    strategy = context.strategy
    if strategy is None:
        return facts
    signs = tuple(sign for sign in facts.distributed if not sign.launcher)
    if strategy is Strategy.SINGLE:
        signs = ()
    elif context.world_size is None:
        signs = (*signs, LaunchSign("the training configuration", 1, launcher=True))
    paths = tuple(
        dataclasses.replace(path, trainings=tuple(_under(training, strategy) for training in path.trainings))
        for path in facts.paths
    )
    return dataclasses.replace(facts, distributed=signs, paths=paths)


def _under(training: Training, strategy: Strategy) -> Training:
    """Return a training under a strategy."""
    stage = _STAGES.get(strategy)
    if strategy in (Strategy.FSDP1, Strategy.FSDP2) or stage is not None:
        return dataclasses.replace(training, zero_stage=stage, fsdp=stage is None, flattened=strategy is Strategy.FSDP1)
    asks = [training.arguments is not None and training.arguments.gives(name) for name in ("deepspeed", "fsdp")]
    stage, sharded = (training.zero_stage if asks[0] else None), (training.fsdp if asks[1] else False)
    return dataclasses.replace(training, zero_stage=stage, fsdp=sharded, flattened=training.flattened and asks[1])
