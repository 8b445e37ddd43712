"""One rank of tensor parallelism: a copy of the model whose weights have the shapes that transformers' plan leaves to a rank.

transformers 5 reads the plan of the model's class and of its config (``PreTrainedModel._tp_plan``), splits the weights while it
loads them, and moves results between ranks in hooks (``transformers.distributed.tensor_parallel``). A step through the copy
allocates what a step of a rank allocates: each rank runs the same batch, with its part of the heads and of the inner width.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from kbitlint.errors import KbitlintError
from kbitlint.model.inspect.walk import named_modules
from kbitlint.model.layers import adapters, quantized

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

#: style -> the dimension of the weight that is split
_SPLITS = {
    "colwise": 0,
    "colwise_gather_output": 0,
    "colwise_rep": 0,
    "rowwise": 1,
    "rowwise_rep": 1,
    "embedding_rowwise": 0,
    "embedding_colwise": 1,
}
#: styles whose result each rank gathers whole
_GATHERED = frozenset(("colwise_gather_output", "colwise_rep", "embedding_colwise"))
#: styles that leave weights whole
_WHOLE = frozenset(("replicate", "replicated_with_grad_allreduce", "all_reduce"))
#: attributes that give the split dimension of a layer
_WIDTHS = {nn.Linear: ("out_features", "in_features"), nn.Embedding: ("num_embeddings", "embedding_dim")}


def split(twin: nn.Module, ranks: int) -> nn.Module:
    """Leave to a twin what one rank holds, and return it. Its modules compute their part, and gather what the plan gathers.

    Raises:
        KbitlintError: transformers has no plan for the model, the plan or its adapters cannot be trained so, or the ranks do
            not divide a dimension.
    """
    base: Any = adapters.base_of(twin)
    plan: Mapping[str, str] = getattr(base, "_tp_plan", None) or {}
    if not plan:
        raise KbitlintError(f"strategy 'tp' needs a plan, and transformers has none for {type(base).__name__}")
    _must_divide(base, ranks)
    done: set[int] = set()
    for path, module, style in _planned(base, plan):
        _must_be_splittable(path, module, style)
        inner, layer = _layer_of(module)
        _split(path, layer, "weight", _SPLITS[style], ranks, done)
        if _SPLITS[style] == 0 and getattr(layer, "bias", None) is not None:
            _split(path, layer, "bias", 0, ranks, done)
        for second in getattr(inner, "lora_B", {}).values() if _SPLITS[style] == 0 else ():
            _split(path, second, "weight", 0, ranks, done)
        if style in _GATHERED:
            inner.register_forward_hook(lambda _, __, output: torch.cat([output] * ranks, dim=-1))
    return twin


def _planned(base: nn.Module, plan: Mapping[str, str]) -> Iterator[tuple[str, nn.Module, str]]:
    """Yield (path, module, style) of each module whose weights the plan splits."""
    for path, module in named_modules(base):
        style = plan.get(re.sub(r"\.\d+(?=\.|$)", ".*", path))
        if style is not None and style not in _WHOLE:
            yield path, module, style


def _layer_of(module: nn.Module) -> tuple[Any, Any]:
    """Return a module of the plan without wrappers, and its layer without adapters: the same module if it has none."""
    inner: Any = adapters.seen_through(module)
    return inner, inner.get_base_layer() if hasattr(inner, "get_base_layer") else inner


def _must_be_splittable(path: str, module: nn.Module, style: str) -> None:
    """Raise if the first step of real ranks raises, or if the style is not measured."""
    inner, layer = _layer_of(module)
    packing = quantized.packing_of(layer)
    if packing is not None and packing.method == "bitsandbytes":
        raise KbitlintError(
            f"strategy 'tp' takes no weights of bitsandbytes: transformers parts {path} from its quantization state, and the "
            "first step raises"
        )
    adapted = inner is not layer
    if style not in _SPLITS or packing is not None or not isinstance(layer, nn.Linear if adapted else tuple(_WIDTHS)):
        kind = f"{packing.method}'s weights" if packing is not None else f"the style {style!r} of transformers' plan"
        kind = "an adapter" if adapted and style in _SPLITS and packing is None else kind
        raise KbitlintError(f"strategy 'tp': {kind}, which {path} has, is not measured")
    if _SPLITS[style] and adapted:
        raise KbitlintError(
            f"strategy 'tp' trains no adapter on {path}, which is split along its input: the first step raises (PEFT 0.21); "
            "give --lora other targets"
        )


def _must_divide(base: Any, ranks: int) -> None:
    config = base.config.get_text_config() if hasattr(base.config, "get_text_config") else base.config
    for name in ("num_attention_heads", "num_key_value_heads"):
        heads = getattr(config, name, None)
        if isinstance(heads, int) and heads % ranks:
            raise KbitlintError(f"strategy 'tp': {ranks} ranks do not divide {name}={heads}")


def _split(path: str, module: Any, name: str, dim: int, ranks: int, done: set[int]) -> None:
    """Replace a parameter by the part of one rank. A tied parameter is split once."""
    whole = getattr(module, name)
    if id(whole) in done:
        return
    if whole.shape[dim] % ranks:
        raise KbitlintError(f"strategy 'tp': {ranks} ranks do not divide the {whole.shape[dim]} of {path}.{name}")
    shape = [size // ranks if place == dim else size for place, size in enumerate(whole.shape)]
    part = torch.empty(shape, dtype=whole.dtype, device="meta")
    with torch.no_grad():
        whole.data = part  # the object stays, so that tied modules follow
    done.add(id(whole))
    for cls, widths in _WIDTHS.items():
        if isinstance(module, cls) and name == "weight":
            setattr(module, widths[dim], shape[dim])
