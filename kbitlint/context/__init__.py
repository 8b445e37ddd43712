"""How a model will be trained, as far as it is known."""

from kbitlint.context.strategy import Checkpointing, Strategy
from kbitlint.context.training import TrainingContext

__all__ = ["Checkpointing", "Strategy", "TrainingContext"]
