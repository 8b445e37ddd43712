"""Faults planted in a clean quantized model, and factories of the faulty models for the command line.

Each fault is a function that changes a prepared model, with the exact (code, path) pairs that it must cause.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import tiny
import torch

if TYPE_CHECKING:
    from collections.abc import Callable

LAYERS = ("model.layers.0", "model.layers.1")


@dataclass(frozen=True)
class Fault:
    plant: Callable
    shows: frozenset
    severity: str


def _low_precision_norm(model):
    model.model.norm.weight.data = model.model.norm.weight.data.bfloat16()


def _trainable_base_parameter(model):
    for parameter in model.parameters():
        if parameter.is_floating_point():
            parameter.requires_grad_(True)


def _missing_input_grad_hook(model):
    tiny.bind_reentrant(model, use_reentrant=True)


def _stacked_input_grad_hooks(model):
    model.enable_input_require_grads()
    model.enable_input_require_grads()


def _reentrant_checkpointing(model):
    tiny.bind_reentrant(model)
    model.enable_input_require_grads()


def _checkpointing_off(model):
    model.gradient_checkpointing_disable()


def _checkpointing_inactive(model):
    for layer in model.model.layers:
        layer.eval()


def _cache_with_checkpointing(model):
    model.config.use_cache = True


def _float32_compute_dtype(model):
    for module in model.modules():
        if hasattr(module, "compute_dtype"):
            module.compute_dtype = torch.float32


def _float32_frozen_weight(model):
    """Add a tower that text does not reach, so that no other rule reports its dtype."""
    model.model.tower = torch.nn.Embedding(256, 64).requires_grad_(False)


def _float16_compute(model):
    for module in model.modules():
        if hasattr(module, "compute_dtype"):
            module.compute_dtype = torch.float16


QUANTIZED = tuple(
    f"{layer}.{name}"
    for layer in LAYERS
    for name in (
        "self_attn.q_proj",
        "self_attn.k_proj",
        "self_attn.v_proj",
        "self_attn.o_proj",
        "mlp.gate_proj",
        "mlp.up_proj",
        "mlp.down_proj",
    )
)


#: the parameters that are not packed, which loading leaves trainable
UNPACKED = (
    "lm_head.weight",
    "model.embed_tokens.weight",
    "model.norm.weight",
    *(f"{layer}.{name}.weight" for layer in LAYERS for name in ("input_layernorm", "post_attention_layernorm")),
)


def _all_of(code, paths):
    return frozenset((code, path) for path in paths)


FAULTS = {
    "low-precision-norm": Fault(_low_precision_norm, _all_of("KB101", ["model.norm"]), "warning"),
    "trainable-base-parameter": Fault(_trainable_base_parameter, _all_of("KB201", UNPACKED), "warning"),
    # a hook can only be missing if checkpointing is reentrant, which is a violation of its own
    "missing-input-grad-hook": Fault(_missing_input_grad_hook, _all_of("KB301", LAYERS) | _all_of("KB401", LAYERS), "error"),
    "stacked-input-grad-hooks": Fault(_stacked_input_grad_hooks, _all_of("KB302", ["model.embed_tokens"]), "info"),
    "reentrant-checkpointing": Fault(_reentrant_checkpointing, _all_of("KB401", LAYERS), "warning"),
    "checkpointing-off": Fault(_checkpointing_off, _all_of("KB402", [""]), "warning"),
    "checkpointing-inactive": Fault(_checkpointing_inactive, _all_of("KB403", LAYERS), "warning"),
    "cache-with-checkpointing": Fault(_cache_with_checkpointing, _all_of("KB404", ["config"]), "info"),
    "float32-compute-dtype": Fault(_float32_compute_dtype, _all_of("KB502", QUANTIZED), "warning"),
    "float32-frozen-weight": Fault(_float32_frozen_weight, _all_of("KB104", ["model.tower.weight"]), "info"),  # of few bytes
    "float16-compute": Fault(_float16_compute, _all_of("KB106", QUANTIZED), "warning"),
}

#: the largest sets of faults that one model can have at once
TOGETHER = {
    "without a hook": [
        "low-precision-norm",
        "trainable-base-parameter",
        "missing-input-grad-hook",
        "checkpointing-inactive",
        "cache-with-checkpointing",
        "float32-compute-dtype",
    ],
    "with hooks": [
        "low-precision-norm",
        "reentrant-checkpointing",
        "stacked-input-grad-hooks",
        "checkpointing-inactive",
        "cache-with-checkpointing",
        "float32-compute-dtype",
        "trainable-base-parameter",
    ],
    "without checkpointing": [
        "low-precision-norm",
        "trainable-base-parameter",
        "stacked-input-grad-hooks",
        "checkpointing-off",
        "float32-compute-dtype",
    ],
}


def faulty(*names, kind="nf4"):
    """Return a clean quantized Llama with these faults."""
    model = tiny.prepared(kind=kind)
    for name in names:
        FAULTS[name].plant(model)
    return model


def shown(*names):
    """Return the (code, path) pairs that these faults cause together."""
    return frozenset().union(*(FAULTS[name].shows for name in names))


def clean():
    return tiny.prepared()


def unprepared():
    return tiny.load()


def unquantized():
    return tiny.load(kind="none")


def trainer():
    """Return a Trainer whose arguments enable checkpointing."""
    import transformers

    arguments = transformers.TrainingArguments(
        output_dir=str(tiny.checkpoint() / "out"), gradient_checkpointing=True, report_to=[], use_cpu=True
    )
    model = tiny.with_lora(tiny.load())
    return transformers.Trainer(model=model, args=arguments)


def returns_none():
    return None


def returns_text():
    return "a model"


def raises():
    raise ValueError("no data\nand more lines")


def needs_cuda():
    raise RuntimeError("Torch not compiled with CUDA enabled")


def leaves():
    raise SystemExit(3)


def __getattr__(name):
    """Return the factory ``faulty_<name>`` of a fault, or ``together_<name>`` of a set of faults."""
    for prefix, table in (("faulty_", {key: [key] for key in FAULTS}), ("together_", TOGETHER)):
        for key, names in table.items():
            if name == prefix + key.replace("-", "_").replace(" ", "_"):
                return lambda names=tuple(names): faulty(*names)
    raise AttributeError(name)
