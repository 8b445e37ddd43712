"""What ``from_pretrained`` of transformers refuses for some types of models: transformers 5.23, ``modeling_utils.py``."""

from __future__ import annotations

from kbitlint.upstream.contracts.model_types import NO_FLASH, NO_SDPA
from kbitlint.upstream.contracts.rows import Contract

_LOADS = ("transformers.*from_pretrained",)
LOAD_ROWS = (
    Contract(
        _LOADS,
        f"attn_implementation == 'sdpa' and model.type in {NO_SDPA!r}",
        "does not support an attention implementation through torch.nn.functional.scaled_dot_product_attention yet",
        drops="attn_implementation",
        since="5",
    ),
    Contract(
        _LOADS,
        f"attn_implementation in ('flash_attention_2', 'flash_attention_3') and model.type in {NO_FLASH!r}",
        "does not support Flash Attention  yet",
        drops="attn_implementation",
        since="5",
    ),
)
