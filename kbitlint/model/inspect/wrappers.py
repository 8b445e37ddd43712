"""The training context that a model's wrappers and the launcher's environment show: DDP, FSDP, DeepSpeed, the device."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

import torch

from kbitlint.context import Strategy, TrainingContext
from kbitlint.context.launchers import zero_stage
from kbitlint.model.layers.adapters import base_of

if TYPE_CHECKING:
    from torch import nn


def context_of_launcher() -> TrainingContext:
    """Return the context of this process's launcher. It holds the GPU of the rank, by ``LOCAL_RANK``.

    The context is empty if the variable is missing or CUDA is not available.
    """
    rank = os.environ.get("LOCAL_RANK", "")
    if not rank.isdecimal() or not torch.cuda.is_available():
        return TrainingContext()
    return TrainingContext(device=f"cuda:{int(rank) % torch.cuda.device_count()}")


def context_of_wrappers(model: nn.Module) -> TrainingContext:
    """Return the context that the model's wrappers show. It is empty if no wrapper is known."""
    base = base_of(model)
    for module in model.modules():
        wrapper: Any = module
        names = {cls.__name__ for cls in type(module).__mro__}
        if "DistributedDataParallel" in names:
            return TrainingContext(
                strategy=Strategy.DDP,
                find_unused_parameters=bool(wrapper.find_unused_parameters),
                static_graph=bool(wrapper.static_graph),
            )
        if "FullyShardedDataParallel" in names:
            return TrainingContext(strategy=Strategy.FSDP1)
        if "FSDPModule" in names:
            return TrainingContext(strategy=Strategy.FSDP2)
        if "DeepSpeedEngine" in names:
            stage = int(wrapper.zero_optimization_stage())
            return TrainingContext(strategy=zero_stage({"zero_optimization": {"stage": stage}}))
        if module is base:
            break
    if "deepspeed" in sys.modules and any(hasattr(parameter, "ds_id") for parameter in base.parameters()):
        return TrainingContext(strategy=Strategy.ZERO3)
    return TrainingContext()
