"""What only a prepared run shows: the optimizer's parameters, adapters' settings, and whether parameters are sharded."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kbitlint.facts.ranks import OptimizerFacts
from kbitlint.model.inspect.walk import named_modules

if TYPE_CHECKING:
    from torch import nn

#: settings of an adapter that say where it came from, not what it computes
_ORIGIN = frozenset(["base_model_name_or_path", "revision", "auto_mapping", "peft_version"])


def optimizer_facts(model: nn.Module, optimizer: Any) -> OptimizerFacts | None:
    """What an optimizer holds of a model; None where its tensors are flat shards and cannot be told apart.

    accelerate's and DeepSpeed's wrappers hold the optimizer they wrap under ``optimizer``.
    """
    while not hasattr(optimizer, "param_groups") and hasattr(optimizer, "optimizer"):
        optimizer = optimizer.optimizer
    groups = getattr(optimizer, "param_groups", None)
    if groups is None or is_sharded(model):
        return None
    held = {id(parameter) for group in groups for parameter in group["params"]}
    paths: dict[int, tuple[str, bool]] = {}
    for path, module in named_modules(model):
        for name, parameter in module.named_parameters(recurse=False):
            paths.setdefault(id(parameter), (f"{path}.{name}" if path else name, bool(parameter.requires_grad)))
    return OptimizerFacts(
        missing=tuple(path for key, (path, trains) in paths.items() if trains and key not in held),
        frozen=tuple(path for key, (path, trains) in paths.items() if not trains and key in held),
        strangers=len(held - set(paths)),
        held=len(held),
    )


def is_sharded(model: nn.Module) -> bool:
    """Whether FSDP1 or ZeRO-3 left each rank a part of its parameters under their own names."""
    if any("_flat_param" in module.__dict__ or "_fsdp_wrapped_module" in module._modules for module in model.modules()):  # noqa: SLF001  # FSDP has no public mark
        return True
    return any(hasattr(parameter, "ds_id") for parameter in model.parameters())


def adapter_settings(model: nn.Module) -> dict[str, str]:
    """The settings of every PEFT adapter as text, by ``adapter.key``."""
    owner: Any = next((module for module in model.modules() if isinstance(getattr(module, "peft_config", None), dict)), None)
    settings: dict[str, str] = {}
    for name, config in owner.peft_config.items() if owner is not None else ():
        values = config.to_dict() if hasattr(config, "to_dict") else {}
        for key, value in values.items():
            if key not in _ORIGIN and not callable(value):
                settings[f"{name}.{key}"] = str(sorted(map(str, value)) if isinstance(value, (set, frozenset)) else value)
    return settings
