"""Facts of a Trainer beyond its model: the reference model, the optimizer that it holds, its first sequences."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import nn

from kbitlint.facts.ranks import RanksFacts, ReferenceFacts
from kbitlint.model.attributes import attribute
from kbitlint.model.inspect.first_batch import first_batch
from kbitlint.model.inspect.optimizer import optimizer_facts
from kbitlint.model.inspect.trainer_code import calls
from kbitlint.model.layers.adapters import base_of, owner_of

if TYPE_CHECKING:
    from kbitlint.facts.model import ModelFacts


#: The method of AdaLoRA that prunes ranks. PEFT leaves its call to the loop.
ALLOCATE = "update_and_allocate"


def run_facts(live: Any, model: nn.Module, facts: ModelFacts, optimizer: Any) -> RanksFacts | None:
    """Return the facts of a run in one process; None if neither an optimizer, nor a reference, nor data are at hand.

    Args:
        live: The Trainer, or the model itself.
        model: The model.
        facts: The facts of the model.
        optimizer: The optimizer that the caller named; None for the Trainer's own.
    """
    trainer = None if live is model else live
    optimizer = attribute(trainer, "optimizer") if optimizer is None else optimizer
    held = None if optimizer is None else optimizer_facts(model, optimizer)
    reference = reference_facts(trainer, model)
    batch = first_batch(trainer, model)
    pruned = trainer is not None and any(adapter.kind == "ADALORA" for adapter in facts.adapters)
    known = pruned or any(found is not None for found in (held, reference, batch))
    return RanksFacts(1, facts, (), held, reference, batch, calls(trainer, ALLOCATE)) if known else None


def reference_facts(trainer: Any, model: nn.Module) -> ReferenceFacts | None:
    """Return the reference of a Trainer, or None if it has none.

    TRL's trainers keep it as ``ref_model``. None there means the trained model with its adapters disabled (TRL 1.16,
    ``DPOTrainer``, ``GRPOTrainer``). A weight ``beta`` of 0 needs no reference.
    """
    missing = object()
    found = attribute(trainer, "ref_model", missing)
    if trainer is None or found is missing or attribute(attribute(trainer, "args"), "beta", None) == 0:
        return None
    if not isinstance(found, nn.Module):
        return ReferenceFacts()
    base, other = base_of(model), base_of(found)
    # a copy with adapters (A2POTrainer makes one) is not what the model gives with its own disabled
    adapted = owner_of(found, other) is not None
    same = type(base) is type(other) and _origin(base) == _origin(other) != "" and not adapted
    with_data = {id(p): p.numel() * p.element_size() for p in other.parameters()}
    shared = {id(p) for p in base.parameters()}
    nbytes = sum(size for key, size in with_data.items() if key not in shared)
    return ReferenceFacts(type(other).__name__, same, nbytes)


def _origin(model: Any) -> str:
    return str(attribute(attribute(model, "config"), "_name_or_path", ""))
