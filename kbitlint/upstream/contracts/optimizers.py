"""What optimizers refuse: torch 2.13, ``torch/optim``, and bitsandbytes 0.50, ``optim/optimizer.py``."""

from __future__ import annotations

from kbitlint.upstream.contracts.rows import Contract

_TORCH = tuple(f"torch.{name}" for name in ("AdamW", "Adam", "SGD", "NAdam", "RAdam", "Adagrad", "RMSprop"))
_BNB = tuple(f"bitsandbytes.*{name}" for name in ("AdamW", "Adam", "AdamW8bit", "Adam8bit", "AdamW32bit", "Adam32bit"))

#: each compares the rate with a number, and PyYAML reads ``2e-4`` as a text
ROWS = (
    Contract(
        (*_TORCH, *_BNB),
        "text(lr)",
        "'<=' not supported between instances of 'float' and 'str'",
        "TypeError",
        python=True,
    ),
)
