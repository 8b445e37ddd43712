"""The bytes of one rank: what a strategy shards, what each rank holds whole, and what it gathers for a while.

Sources: torch 2.11 (``DistributedDataParallel``, ``fully_shard``), accelerate's wrapping of decoder layers, DeepSpeed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from kbitlint.context.launch import SHARDS
from kbitlint.model.inspect.walk import named_modules
from kbitlint.model.layers import checkpointing

if TYPE_CHECKING:
    from torch import nn

    from kbitlint.context.launch import Launch
    from kbitlint.memory_result import StateMemory, StepMemory


@dataclass(frozen=True, slots=True)
class Units:
    """The bytes of parameters by the unit that is gathered at once."""

    layers: tuple[int, ...]
    """Bytes of each decoder layer."""
    root: int
    """Bytes of all other parameters: embeddings, head, last norm."""


def units_of(model: nn.Module) -> Units:
    """Return the bytes of a model's parameters, by decoder layer and outside of them. A tied parameter counts once."""
    layers: list[int] = []
    seen: set[int] = set()
    for path, module in named_modules(model):
        facts = checkpointing.checkpoint_facts(module, path)
        if facts is not None and facts.is_layer:
            layers.append(_bytes(module, seen))
    return Units(tuple(layers), _bytes(model, seen))


def _bytes(module: nn.Module, seen: set[int]) -> int:
    new = {id(parameter): parameter.nbytes for parameter in module.parameters() if id(parameter) not in seen}
    seen.update(new)
    return sum(new.values())


def rank_bytes(units: Units, state: StateMemory, step: StepMemory, launch: Launch) -> tuple[int, int]:
    """Return the most bytes that the tensors of one rank hold on (its card, the host).

    Each rank runs its own batch, so activations and logits are those of one card. What differs:

    - DDP copies the gradients into buckets.
    - ZeRO 1 shards the optimizer's state, ZeRO 2 the gradients too.
    - FSDP and ZeRO 3 shard parameters. A rank gathers two layers at once: that which runs, and the next. Embeddings and head
      belong to the root, which stays gathered from its forward pass to the end of the backward pass. The quantization state
      is no parameter, so every rank holds all of it.
    - ``device_map`` puts an equal part of the layers on each card. The last one holds the head, the logits and the loss too.
    """
    ranks, (weights, gradients, optimizer) = launch.ranks, SHARDS[launch.strategy]
    if launch.strategy == "device_map":
        return _spread(units, state, step, ranks), state.host
    peak, host = step.peak, state.host
    if launch.strategy == "ddp":
        peak += state.gradients
    if optimizer:
        rest = state.optimizer - _shard(state.optimizer, ranks)
        peak -= rest
        host = _shard(state.host, ranks)
    if gradients and "optimizer" in step.peak_at:
        peak -= state.gradients - _shard(state.gradients, ranks)
    if weights:
        whole = sum(units.layers) + units.root
        shards = sum(_shard(unit, ranks) for unit in (*units.layers, units.root))
        gathered = units.root + sum(sorted(units.layers)[-2:])
        peak += gathered - whole
        if launch.offload:
            host += shards + _shard(state.optimizer, ranks)
            peak -= _shard(state.optimizer, ranks)
        else:
            peak += shards
    return peak, host


def _shard(count: int, ranks: int) -> int:
    return -(-count // ranks)


def _spread(units: Units, state: StateMemory, step: StepMemory, cards: int) -> int:
    """Return the bytes of the last card if layers are spread evenly over cards."""
    layers = sum(units.layers)
    kept = step.activations
    beside = step.peak - sum(state.resident.values()) - state.optimizer - kept
    resident = sum(state.resident.values()) - layers - units.root
    return units.root + _shard(layers + kept + resident + state.optimizer, cards) + beside
