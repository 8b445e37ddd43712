"""How a model will be trained, as far as it is known."""

from kbitlint.context.training import Checkpointing, Strategy, TrainingContext

__all__ = ["Checkpointing", "Strategy", "TrainingContext"]
