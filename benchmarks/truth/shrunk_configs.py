"""Configs of transformers, shrunk by rules.

A name that means a size gets a small one. A list with an item for each layer keeps one layer of each kind.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
from typing import Any

import transformers
from transformers import PreTrainedConfig

from benchmarks.truth.config_sizes import (
    EXCEPTIONS,
    HEADS,
    KEY_VALUE_HEADS,
    LAYER_COUNTS,
    LAYERS,
    LEFT_OUT,
    NEEDED,
    SIZES,
    SMALL_ID,
    STAGES,
    TOKEN_ID,
)


def shrunk(config: Any, model_type: str = "", further: dict[str, Any] | None = None) -> Any:
    """Return a config of the same class with small sizes."""
    cls = type(config)
    changes: dict[str, Any] = {}
    for key in (cls.__name__, getattr(cls, "model_type", ""), model_type):
        changes |= EXCEPTIONS.get(key, {})
    changes |= further or {}
    here = {name: value for name, value in changes.items() if "." not in name}
    values = _values(config)
    outputs = _outputs(config, values)
    if outputs:  # a backbone, whose further values its model relies on
        here = {name: value for name, value in here.items() if name not in STAGES}
        made = dict(values)
    else:
        made = {}
    made |= _small(values) | outputs | _small_parts(values, changes) | here
    return cls(**{name: value for name, value in made.items() if value is not LEFT_OUT})


def _outputs(config: Any, values: dict[str, Any]) -> dict[str, Any]:
    """Return the outputs of a backbone that gives several, and the layers that they need."""
    indices = list(getattr(config, "out_indices", None) or ())
    if len(indices) < 2:
        return {}
    if "num_hidden_layers" not in values:
        return {"out_indices": indices}
    return {"num_hidden_layers": len(indices), "out_indices": list(range(1, len(indices) + 1))}


def _values(config: Any) -> dict[str, Any]:
    """Return the constructor arguments that make the config again."""
    found: dict[str, Any] = {}
    for name in _fields(type(config)):
        with contextlib.suppress(Exception):  # a config that differs by layer raises for one value of all layers
            found[name] = vars(config)[name] if name in vars(config) else getattr(config, name)
    return found


def _small_parts(values: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    return {
        name: _resnet(value)
        if value.model_type == "timm_backbone"
        else shrunk(value, further={key.partition(".")[2]: item for key, item in changes.items() if key.startswith(f"{name}.")})
        for name, value in values.items()
        if isinstance(value, PreTrainedConfig)
    }


def _resnet(timm: Any) -> Any:
    """Return a small ResNet of transformers in place of a backbone of timm, which needs a further library."""
    count = len(list(getattr(timm, "out_indices", None) or [4]))
    return transformers.ResNetConfig(
        embedding_size=16,
        hidden_sizes=[16, 16, 32, 32],
        depths=[1, 1, 1, 1],
        layer_type="basic",
        out_features=[f"stage{index}" for index in range(5 - count, 5)],
    )


def _small(values: dict[str, Any]) -> dict[str, Any]:
    """Return small values for the attributes that the rules know by name."""
    lists = _lists_by_layer(values)
    chosen = _one_of_each_kind(list(lists.values())) if lists else list(range(LAYERS))
    made: dict[str, Any] = {name: _of_layers(name, value, chosen) for name, value in lists.items()}
    # a layer that is dropped at random would look like a fault
    made |= {name: 0.0 for name in values if name.endswith("layerdrop")}
    made |= {name: needed for name, needed in NEEDED.items() if name in values and values[name] is None}
    made |= {name: list(values[name]) for name in ("hidden_sizes", "embed_dim") if isinstance(values.get(name), tuple)}
    made |= {name: [1] * len(values[name]) for name in ("depths",) if isinstance(values.get(name), (tuple, list))}
    free_id = 3
    for name, value in values.items():
        if name in made or value is None or isinstance(value, (bool, PreTrainedConfig)):
            continue
        if name in SIZES:
            small = _small_size(name, value, values.get("num_attention_heads"), len(chosen))
            if small is not None:
                made[name] = small
        elif name.endswith(TOKEN_ID):
            if isinstance(value, int) and value >= SMALL_ID:
                made[name], free_id = free_id, free_id + 1
            elif isinstance(value, (list, tuple)) and value:
                made[name] = [2]
    return made


def _small_size(name: str, value: Any, heads: Any, layers: int) -> Any:
    """Return a size for one attribute, or None if its value is no size."""
    size = layers if name in (*LAYER_COUNTS, "max_window_layers") else SIZES[name]
    if isinstance(value, int):
        if name in KEY_VALUE_HEADS:
            return HEADS if value == heads else min(value, HEADS // 2)
        return min(value, size)
    if isinstance(value, (list, tuple)) and value and all(isinstance(item, int) for item in value):
        if size == HEADS:  # stages whose widths are powers of two
            return [1 << (min(item, size).bit_length() - 1) for item in value]
        return [min(item, size) for item in value]
    return None


@functools.cache
def _fields(cls: Any) -> tuple[str, ...]:
    """Return the arguments of the constructors of a config class and its bases."""
    names: dict[str, None] = {}
    for base in cls.__mro__:
        names |= dict.fromkeys(inspect.get_annotations(base))
        with contextlib.suppress(TypeError, ValueError):
            names |= dict.fromkeys(inspect.signature(base.__init__).parameters)
    left_out = {"self", "args", "kwargs", "id2label", "label2id", "dtype", "transformers_version"}
    return tuple(name for name in names if name not in left_out and not name.startswith("_"))


def _lists_by_layer(values: dict[str, Any]) -> dict[str, list[Any]]:
    """Return the lists with one item for each layer."""
    count = next((value for name in LAYER_COUNTS if isinstance(value := values.get(name), int)), 0)
    if count <= 1:
        return {}
    return {
        name: list(value)
        for name, value in values.items()
        if isinstance(value, (list, tuple)) and len(value) == count and not name.endswith(TOKEN_ID)
    }


def _one_of_each_kind(lists: list[list[Any]]) -> list[int]:
    """Return few layers (chosen greedily) that show every value of every list, at least ``LAYERS`` of them."""
    rows = list(zip(*([repr(item) for item in values] for values in lists), strict=True))
    missing = {(column, item) for row in rows for column, item in enumerate(row)}
    if len(missing) > 8 * len(lists):  # values that differ from layer to layer are no kinds
        return list(range(min(LAYERS, len(rows))))
    chosen: list[int] = []
    while missing:
        best = max(range(len(rows)), key=lambda index: (len(missing & set(enumerate(rows[index]))), -index))
        missing -= set(enumerate(rows[best]))
        chosen.append(best)
    others = (index for index in range(len(rows)) if index not in chosen)
    while len(chosen) < min(LAYERS, len(rows)):
        chosen.append(next(others))
    return sorted(chosen)


def _of_layers(name: str, values: list[Any], chosen: list[int]) -> list[Any]:
    """Return the items of the chosen layers, with small sizes and renumbered layer indices."""
    kept = [values[index] for index in chosen]
    if not all(isinstance(value, int) and not isinstance(value, bool) for value in kept) or max(kept) <= 1:
        return kept
    size = SIZES.get(name.removesuffix("_per_layer").removesuffix("s"))
    if size is not None:
        return [min(value, size) for value in kept]
    return list(range(len(kept))) if kept == sorted(set(kept)) else kept
