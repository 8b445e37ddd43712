"""The training context: the known settings of a model's future training."""

from kbitlint.context.strategy import Checkpointing, Strategy
from kbitlint.context.training import TrainingContext

__all__ = ["Checkpointing", "Strategy", "TrainingContext"]
