"""What ``from_pretrained`` of transformers refuses for some types of models: transformers 5.23, ``modeling_utils.py``."""

from __future__ import annotations

from kbitlint.upstream.contracts.model_types import NO_FLASH, NO_SDPA
from kbitlint.upstream.contracts.rows import Contract

_LOADS = ("transformers.*from_pretrained",)
#: short names of dtypes, which torch does not have
_NO_DTYPES = ("bf16", "fp16", "fp32", "f16", "f32", "int4", "4bit", "8bit", "nf4", "fp4", "torch.bfloat16", "torch.float16")
_NO_DEVICES = ("gpu", "cuda0", "balance", "all", "multi", "gpu:0", "true", "gpus")
_NO_ATTENTION = ("flash_attention", "flash_attn", "flash", "flash_attn_2", "flash-attention-2", "flash_attention2", "xformers")
LOAD_ROWS = (
    *(
        Contract(
            _LOADS,
            f"text({name}) and {name} in {_NO_DTYPES!r}",
            "`dtype` provided as a `str` can only be `'auto'`, or a string representation of a valid `torch.dtype`",
            drops=name,
        )
        for name in ("dtype", "torch_dtype")
    ),
    Contract(
        _LOADS,
        f"text(device_map) and device_map in {_NO_DEVICES!r}",
        "When passing device_map as a string, the value needs to be a device name",
        drops="device_map",
    ),
    Contract(
        _LOADS,
        f"text(attn_implementation) and attn_implementation in {_NO_ATTENTION!r}",
        "Specified `attn_implementation` is not supported",
        drops="attn_implementation",
        since="4.36",
    ),
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
