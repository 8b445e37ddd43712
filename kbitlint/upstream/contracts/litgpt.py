"""What LitGPT refuses of quantized training: LitGPT 0.5, ``litgpt/finetune``."""

from __future__ import annotations

from kbitlint.upstream.contracts.rows import Contract

_ADAPTED = tuple(f"litgpt.finetune{kind}" for kind in ("", "_lora", "_lora_legacy", "_adapter", "_adapter_v2"))
_METHODS = ("bnb.nf4", "bnb.nf4-dq", "bnb.fp4", "bnb.fp4-dq", "bnb.int8-training")

ROWS = (
    Contract(
        _ADAPTED,
        "starts(quantize, 'bnb.') and has(precision, 'mixed')",
        "Quantization and mixed precision is not supported.",
        drops="precision",
    ),
    Contract(
        _ADAPTED,
        "text(quantize) and (number(devices) and devices > 1 or number(num_nodes) and num_nodes > 1)",
        "Quantization is currently not supported for multi-GPU training",
        "NotImplementedError",
        "devices",
    ),
    Contract(_ADAPTED, f"text(quantize) and quantize not in {_METHODS!r}", "argument --quantize: invalid choice", "SystemExit"),
    Contract(
        ("litgpt.finetune_full",),
        "quantize is not None",
        "Unrecognized arguments: --quantize",
        "SystemExit",
        "quantize",
    ),
)
