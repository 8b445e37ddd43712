"""Facts of the data that a script makes for a training, and of the functions that the training calls on it."""

from __future__ import annotations

from kbitlint.lazy_dataclass import dataclass


@dataclass(frozen=True, slots=True)
class DataUse:
    """One place where data of the script meets code that takes it in another form."""

    kind: str
    """The relation, a key of ``upstream/data_contracts.py``: ``streamed without max_steps``."""
    line: int
    detail: str = ""
    """The names that the message needs."""
