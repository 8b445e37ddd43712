"""The row of a family of checkpoints; ``family_rows.py`` has them."""

from __future__ import annotations

from typing import NamedTuple


class Family(NamedTuple):  # 230 tuples are made in a fifth of the time of data classes
    """Checkpoints with a common architecture and a common way of training."""

    source: str
    """The checkpoint whose config.json the row is taken from."""
    word: str
    """The part of a normalized name that identifies the family; alternatives are separated by blanks."""
    architecture: str
    """The model type of transformers; empty if the code comes with the checkpoint."""
    dtype: str
    """The dtype in which the weights are published."""
    vocabulary: int = 0
    """The number of rows of the embeddings; 0 if it is not known."""
    hidden: str = ""
    """Hidden sizes by size in the name: ``8b:4096 70b:8192``."""
    tied: str = ""
    """The sizes whose head shares the embeddings' weight: ``*`` for all, empty for none."""
    overflows: bool = False
    """Whether users reported activations beyond the range of float16."""
