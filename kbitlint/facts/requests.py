"""Facts of requests that a model does not fulfil: names in configurations that match nothing in it."""

from __future__ import annotations

from kbitlint.lazy_dataclass import dataclass


@dataclass(frozen=True, slots=True)
class UnmatchedEntry:
    """One entry of an adapter's configuration that matches nothing in the model."""

    adapter: str
    key: str
    """The setting: ``target_modules``, ``modules_to_save``, ``rank_pattern``, ..."""
    entry: str


@dataclass(frozen=True, slots=True)
class DeadSkip:
    """One name in the list of modules to leave unquantized that matches no module."""

    name: str
    packed: int
    """Number of quantized layers that have the name in their path."""
    first: str
    """The path of the first of them; empty if there is none."""
