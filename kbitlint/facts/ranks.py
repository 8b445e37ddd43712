"""Where training runs, as data: what each rank's model is like, how the ranks differ, what the optimizer holds.

Aspects are plain strings by path, so that they travel between processes and compare exactly.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from kbitlint.module_paths import spans

if TYPE_CHECKING:
    from collections.abc import Mapping

    from kbitlint.facts.model import ModelFacts

Aspects = dict[str, dict[str, str]]
"""aspect -> path -> value."""

ABSENT = "absent"
TRAINABLE, ORDER, FROZEN, QUANTIZATION, ADAPTERS = "trainable parameters", "order", "frozen dtypes", "quantization", "adapters"
CHECKPOINTING, HOOKS = "checkpointing", "input-grad hooks"


@dataclass(frozen=True, slots=True)
class Divergence:
    """One path at which ranks differ in one aspect."""

    aspect: str
    path: str
    values: tuple[tuple[str, tuple[int, ...]], ...]
    """(value, ranks that have it), the lowest rank's value first."""

    def __str__(self) -> str:
        return ", ".join(f"{value} on {named(ranks)}" for value, ranks in self.values)


@dataclass(frozen=True, slots=True)
class OptimizerFacts:
    """What an optimizer holds of a model."""

    missing: tuple[str, ...]
    """Trainable parameters of the model that it does not hold: they get gradients and never change."""
    frozen: tuple[str, ...]
    """Parameters that it holds and that require no grad."""
    strangers: int
    """Tensors it holds that are no parameter of the model (any more)."""
    held: int


@dataclass(frozen=True, slots=True)
class RanksFacts:
    """What the ranks of a run look like side by side."""

    world_size: int
    model: ModelFacts
    """The model of the lowest rank."""
    divergences: tuple[Divergence, ...] = ()
    optimizer: OptimizerFacts | None = None
    """What the optimizer of the lowest rank holds; None where there is none or its tensors are shards."""


def named(ranks: tuple[int, ...]) -> str:
    """Ranks in words: ``rank 1``, ``ranks 0-2, 5``."""
    text = ", ".join(str(first) if first == last else f"{first}-{last}" for first, last in spans(ranks))
    return f"rank{'s' * (len(ranks) > 1)} {text}"


def compare(by_rank: Mapping[int, Aspects]) -> tuple[Divergence, ...]:
    """Every path at which the ranks differ, ordered by aspect and path."""
    found: list[Divergence] = []
    ranks = sorted(by_rank)
    aspects = sorted({aspect for aspects in by_rank.values() for aspect in aspects})
    for aspect in aspects:
        tables = {rank: by_rank[rank].get(aspect, {}) for rank in ranks}
        if all(tables[rank] == tables[ranks[0]] for rank in ranks):
            continue
        for path in sorted({path for table in tables.values() for path in table}):
            values: dict[str, list[int]] = {}
            for rank in ranks:
                values.setdefault(tables[rank].get(path, ABSENT), []).append(rank)
            if len(values) > 1:
                found.append(Divergence(aspect, path, tuple((value, tuple(which)) for value, which in values.items())))
    return tuple(found)


def aspects_of(facts: ModelFacts, adapters: Mapping[str, str], *, sharded: bool) -> Aspects:
    """What has to be the same on every rank.

    Args:
        facts: One rank's model.
        adapters: The settings of its adapters, by ``adapter.key``.
        sharded: Whether each rank holds a part of its parameters, so that their shapes differ.
    """
    trainable = {p.path: p.dtype if sharded else f"{p.dtype} {list(p.shape)}" for p in facts.trainable}
    return {
        TRAINABLE: trainable,
        ORDER: {path: str(number) for number, path in enumerate(trainable)},
        FROZEN: {_plain(p.path): p.dtype for p in facts.parameters if not p.requires_grad},
        QUANTIZATION: {
            _plain(layer.path): " ".join(filter(None, [layer.packing.method, layer.packing.kind, layer.packing.compute_dtype]))
            for layer in facts.quantized
        },
        CHECKPOINTING: {checkpoint.path: f"use_reentrant={checkpoint.reentry.value}" for checkpoint in facts.checkpointing},
        HOOKS: {hooks.path: str(len(hooks.names)) for hooks in facts.input_grad_hooks},
        ADAPTERS: dict(adapters),
    }


def _plain(path: str) -> str:
    """The path as it is where no adapter wraps the module: ranks that adapt others differ in these alone."""
    return path.replace(".base_layer", "")
