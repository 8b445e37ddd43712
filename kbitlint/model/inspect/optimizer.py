"""Facts of a prepared run: the optimizer's parameters, the adapters' settings, and whether parameters are sharded."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from torch import Tensor

from kbitlint.facts.ranks import UPHILL, OptimizerFacts
from kbitlint.model.inspect.walk import named_modules
from kbitlint.model.layers.values import is_finite

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import nn

#: Running averages that the optimizers of torch keep for each element of a parameter.
_AVERAGES = ("exp_avg", "exp_avg_sq", "max_exp_avg_sq", "momentum_buffer", "square_avg")
#: Optimizers of torch 2.13 that refuse a sparse gradient. ``SparseAdam``, ``Adagrad`` and ``SGD`` take one.
_DENSE = frozenset(["Adam", "AdamW", "Adamax", "NAdam", "RAdam", "RMSprop", "ASGD", "Adafactor", "Adadelta", "Rprop"])
#: Settings of an adapter that name its origin. They do not change its computation.
_ORIGIN = frozenset(["base_model_name_or_path", "revision", "auto_mapping", "peft_version"])


def optimizer_facts(model: nn.Module, optimizer: Any) -> OptimizerFacts | None:
    """Return the trainable parameters that an optimizer lacks, the frozen ones that it holds, and the number of foreign ones.

    None means that the parameters cannot be compared: the tensors are flat shards, or the optimizer has no parameter groups.
    The wrappers of accelerate and DeepSpeed hold their optimizer as ``optimizer``.
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
        rate=_rate(groups),
        unfit=(
            *_unfit(groups, getattr(optimizer, "state", {}), paths),
            *(_sparse(model, held) if type(optimizer).__name__ in _DENSE else ()),
        ),
        astray=tuple(dict.fromkeys(problem for group in groups for problem in _astray(group, type(optimizer).__name__))),
    )


def _sparse(model: nn.Module, held: set[int]) -> Iterator[tuple[str, str]]:
    """Yield (path, problem) of each embedding whose gradient is sparse."""
    for path, module in named_modules(model):
        weight: Any = module._parameters.get("weight") if getattr(module, "sparse", False) else None  # noqa: SLF001  # one dictionary read
        if weight is not None and weight.requires_grad and id(weight) in held:
            yield f"{path}.weight", "its gradient is sparse, and this optimizer takes no sparse gradients"


def _unfit(groups: Any, state: Any, paths: dict[int, tuple[str, bool]]) -> Iterator[tuple[str, str]]:
    """Yield (path, problem) of each parameter whose running averages have another shape, or hold NaN or infinity."""
    for parameter in (one for group in groups for one in group["params"]):
        kept = state.get(parameter, {}) if isinstance(state, Mapping) else {}
        averages = {name: kept[name] for name in _AVERAGES if isinstance(kept, Mapping) and isinstance(kept.get(name), Tensor)}
        for name, average in averages.items():
            if problem := _problem(name, average, parameter):
                yield paths.get(id(parameter), ("", False))[0], problem
                break


def _problem(name: str, average: Tensor, parameter: Tensor) -> str:
    if average.shape != parameter.shape:
        return f"its {name} has the shape {list(average.shape)}, and the parameter {list(parameter.shape)}"
    finite = average.is_meta or not average.is_floating_point() or is_finite(average)
    return "" if finite else f"its {name} holds NaN or infinity"


def _astray(group: Any, kind: str) -> Iterator[str]:
    """Yield how the settings of a group keep its steps from following the gradient (``torch/optim`` of torch 2.13).

    AdamW and SGD take ``lr * weight_decay`` of a parameter away in each step. Adam gives the decay to its averages.
    """
    rate = _rate([group])
    decay, momentum, dampening = (_number(group.get(name)) for name in ("weight_decay", "momentum", "dampening"))
    if rate is not None and not math.isfinite(rate):
        yield f"the learning rate is {rate}"
    elif rate is not None and kind in ("AdamW", "SGD") and rate * decay >= 1:
        yield f"weight_decay={decay:g} at a rate of {rate:g} multiplies each parameter with {1 - rate * decay:g} in each step"
    if momentum and dampening == 1:
        yield "dampening=1 adds nothing of a gradient to the momentum after the first step"
    if group.get("maximize") is True:
        yield UPHILL


def _number(value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        return 0.0


def _rate(groups: Any) -> float | None:
    """Return the highest learning rate of parameter groups. A warm-up starts at 0, and a scheduler keeps ``initial_lr``."""
    try:
        return max(max(float(group["lr"]), float(group.get("initial_lr", 0.0))) for group in groups)
    except (KeyError, TypeError, ValueError, AttributeError):
        return None


def is_sharded(model: nn.Module) -> bool:
    """Return whether FSDP1 or ZeRO-3 gave each rank only a part of each parameter."""
    if any("_flat_param" in module.__dict__ or "_fsdp_wrapped_module" in module._modules for module in model.modules()):  # noqa: SLF001  # FSDP has no public mark
        return True
    return any(hasattr(parameter, "ds_id") for parameter in model.parameters())


def adapter_settings(model: nn.Module) -> dict[str, str]:
    """Return the settings of every PEFT adapter as text, by ``adapter.key``."""
    owner: Any = next((module for module in model.modules() if isinstance(getattr(module, "peft_config", None), dict)), None)
    settings: dict[str, str] = {}
    for name, config in owner.peft_config.items() if owner is not None else ():
        values = config.to_dict() if hasattr(config, "to_dict") else {}
        for key, value in values.items():
            if key not in _ORIGIN and not callable(value):
                settings[f"{name}.{key}"] = str(sorted(map(str, value)) if isinstance(value, (set, frozenset)) else value)
    return settings
