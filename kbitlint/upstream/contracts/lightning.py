"""What Lightning refuses: Lightning 2.6, ``accelerator_connector.py``, ``fabric/connector.py`` and ``bitsandbytes.py``."""

from __future__ import annotations

from kbitlint.upstream.contracts.rows import Contract

ROWS: tuple[Contract, ...] = (
    Contract(
        ("lightning.Trainer", "lightning.Fabric"),
        "precision is not None and plugin(plugins, 'Precision')",
        "Received both `precision=` and `plugins=`. Choose one.",
        drops="precision",
        example="precision='bf16-true', plugins=BitsandbytesPrecision(mode='nf4')",
    ),
    Contract(
        ("lightning.BitsandbytesPrecision",),
        "starts(mode, 'int8') and dtype is not None and dtype != 'float16'",
        "int8 only works with `dtype=torch.float16`",
        drops="dtype",
        example="mode='int8', dtype=torch.bfloat16",
    ),
)
