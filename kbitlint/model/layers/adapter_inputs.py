"""Inputs that adapters need in a batch: the tokens that invoke an aLoRA, and the task of each sequence."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from kbitlint.model.attributes import attribute

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor, nn

#: types of PEFT whose forward raises without the number of each sequence's task
_BY_TASK = ("POLY", "MULTITASK_PROMPT_TUNING")


def with_adapter_inputs(model: nn.Module, batch: dict[str, Any]) -> dict[str, Any]:
    """Return a batch with the inputs that the active adapters of a model need.

    Args:
        model: The model that is trained, with PEFT's wrapper if it has one.
        batch: Inputs of the base model. Token ids have the shape (sequences, tokens).
    """
    made = dict(batch)
    for config in _active_configs(model):
        tokens = made.get("input_ids")
        if tokens is not None and (invocation := attribute(config, "alora_invocation_tokens")):
            made["input_ids"] = _invoked(tokens, invocation)
            if made.get("labels") is tokens:
                made["labels"] = made["input_ids"]
        kind = str(getattr(attribute(config, "peft_type"), "value", ""))
        if kind in _BY_TASK and batch:
            first = next(value for value in batch.values() if isinstance(value, torch.Tensor))
            made["task_ids"] = torch.zeros(len(first), dtype=torch.long, device=first.device)
    return made


def _active_configs(model: Any) -> Iterator[Any]:
    """Yield the config of each active adapter of PEFT's wrapper."""
    configs = attribute(model, "peft_config")
    if isinstance(configs, dict):
        active = attribute(model, "active_adapters") or ()
        yield from (
            (configs[name] for name in active if isinstance(name, str) and name in configs) if not callable(active) else ()
        )


def _invoked(tokens: Tensor, invocation: Any) -> Tensor:
    """Return token ids with the invocation tokens in the middle. They stay as they are if there is no room."""
    count = len(invocation)
    start = (tokens.shape[-1] - count) // 2
    if tokens.dim() != 2 or start < 1:
        return tokens
    made = tokens.clone()
    made[:, start : start + count] = torch.tensor(list(invocation), dtype=tokens.dtype, device=tokens.device)
    return made
