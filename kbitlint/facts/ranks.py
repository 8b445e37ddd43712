"""Facts of a running training: the ranks' models, their differences, and the optimizer.

Aspects are plain strings by path, so processes can exchange and compare them exactly.
``kbitlint.integrations.ranks`` collects them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kbitlint.lazy_dataclass import dataclass
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
    """One path at which the ranks differ in one aspect."""

    aspect: str
    path: str
    values: tuple[tuple[str, tuple[int, ...]], ...]
    """(value, ranks with this value), starting with the value of the lowest rank."""

    def __str__(self) -> str:
        return ", ".join(f"{value} on {named(ranks)}" for value, ranks in self.values)


#: what ``maximize=True`` does, which is right for a loss that is a reward
UPHILL = "maximize=True lets each step go up the gradient, so that the loss rises"


@dataclass(frozen=True, slots=True)
class OptimizerFacts:
    """The parameters of an optimizer, compared with those of the model."""

    missing: tuple[str, ...]
    """Trainable parameters of the model that the optimizer lacks. They get gradients and never change."""
    frozen: tuple[str, ...]
    """Parameters in the optimizer that do not require grad."""
    strangers: int
    """Number of the optimizer's tensors that are not, or no longer, parameters of the model."""
    held: int
    """Number of tensors in the optimizer."""
    rate: float | None = None
    """The highest learning rate of the groups, now or as a scheduler found it. None if it cannot be read."""
    unfit: tuple[tuple[str, str], ...] = ()
    """(parameter, problem) where a running average that the optimizer keeps does not fit its parameter, or holds NaN."""
    astray: tuple[str, ...] = ()
    """How settings of a group keep its steps from following the gradient downhill."""


@dataclass(frozen=True, slots=True)
class ReferenceFacts:
    """The reference with which a trainer compares the trained model (DPO, KTO, GRPO, ...)."""

    class_name: str = ""
    """The class of a separate reference model; empty if the reference is the trained model without its adapters."""
    same_base: bool = False
    """Whether the separate model is of the class and checkpoint of the trained model's base, and has no adapters."""
    nbytes: int = 0
    """Bytes of the separate model's parameters."""


@dataclass(frozen=True, slots=True)
class BatchFacts:
    """The first sequences of a trainer's data, as its collator batches them."""

    sequences: int
    tokens: int
    learned: int | None = None
    """Number of labels that are not -100; None if the batch has no labels."""
    highest: int = -1
    """The highest id among tokens and labels; -1 without ids."""
    rows: int | None = None
    """Rows of the model's input embedding; None if they are not known."""
    ends: int = 0
    """Number of end-of-sequence tokens that the model attends to."""
    learned_ends: int = 0
    """How many of them have a label."""
    learned_padding: int = 0
    """Number of labels at positions that the attention mask leaves out."""


@dataclass(frozen=True, slots=True)
class RanksFacts:
    """The models of all ranks of one run, and the optimizer."""

    world_size: int
    model: ModelFacts
    """The model of the lowest rank."""
    divergences: tuple[Divergence, ...] = ()
    optimizer: OptimizerFacts | None = None
    """The optimizer of the lowest rank. None if there is no optimizer or its tensors are shards."""
    reference: ReferenceFacts | None = None
    """None if no trainer is known, or it has no reference."""
    batch: BatchFacts | None = None
    """None if no trainer is known, or its data cannot be read ahead."""
    allocates: bool | None = None
    """Whether the trainer or a callback calls ``update_and_allocate`` of AdaLoRA. None if no trainer is known."""

    @property
    def labelled(self) -> BatchFacts | None:
        """The first batch, or None if it is not known or has no labels."""
        return None if self.batch is None or self.batch.learned is None else self.batch


def named(ranks: tuple[int, ...]) -> str:
    """Return ranks in words: ``rank 1``, ``ranks 0-2, 5``."""
    text = ", ".join(str(first) if first == last else f"{first}-{last}" for first, last in spans(ranks))
    return f"rank{'s' * (len(ranks) > 1)} {text}"


def compare(by_rank: Mapping[int, Aspects]) -> tuple[Divergence, ...]:
    """Return every path at which the ranks differ, ordered by aspect and path."""
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
    """Return the aspects that must be equal on every rank.

    Args:
        facts: The model of one rank.
        adapters: The settings of its adapters, by ``adapter.key``.
        sharded: Whether each rank holds only a part of each parameter, so that shapes differ between ranks.
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
    """Return the path without PEFT's ``base_layer``. Ranks that adapt different modules differ in this part only."""
    return path.replace(".base_layer", "")
