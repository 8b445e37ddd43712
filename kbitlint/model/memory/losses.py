"""A language model's head and loss in tiles, as TRL's SFTTrainer runs them: no logits of a whole batch exist.

TRL 1.16 replaces the model's forward (``trl.trainer.utils.add_fused_lm_head``). Its kernel is written in Triton and cannot run
without a card, so its memory is copied here: the buffers of ``trl.kernels.chunked_logprob.ChunkedLogProbFunction`` on CUDA.
"""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor, nn

from kbitlint.errors import KbitlintError
from kbitlint.model.layers import adapters

#: rows and columns of a tile (``TOKEN_CHUNK_SIZE`` and ``_CHUNKED_LOGPROB_CHUNK_SIZE`` of TRL 1.16)
ROWS, COLUMNS = 4096, 32768
#: float32 numbers that the kernel keeps for each token while it runs
_STATISTICS = 7


class _Tiled(torch.autograd.Function):
    """The log-probability of each token. It saves its inputs and two float32 numbers for each token."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
        rows = len(hidden)
        statistics = [torch.empty(rows, device="meta") for _ in range(_STATISTICS)]
        ctx.compute = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else hidden.dtype
        _tile(hidden, weight, ctx.compute)
        logarithms = [torch.empty_like(statistics[0]) for _ in range(3)]
        ctx.save_for_backward(hidden, weight, targets, *logarithms[:2])
        return logarithms[2]

    @staticmethod
    def backward(ctx: Any, *_: Tensor) -> tuple[Tensor | None, ...]:
        hidden, weight, *__ = ctx.saved_tensors
        wide = torch.empty(hidden.shape, dtype=torch.float32, device="meta")
        wide_weight = torch.empty(weight.shape, device="meta") if ctx.needs_input_grad[1] else None
        _tile(hidden, weight, ctx.compute)
        return wide.to(hidden.dtype), None if wide_weight is None else wide_weight.to(weight.dtype), None


def _tile(hidden: Tensor, weight: Tensor, compute: torch.dtype) -> list[Tensor]:
    """Return the buffers of one tile: its products, and rows and columns in the dtype of the product where they differ.

    The buffer of the products has ``COLUMNS`` columns, also for a smaller vocabulary.
    """
    rows = min(len(hidden), ROWS)
    held = [torch.empty(rows, COLUMNS, dtype=compute, device="meta")]
    for tensor, count in ((hidden, rows), (weight, min(len(weight), COLUMNS))):
        if tensor.dtype is not compute:
            held.append(torch.empty(count, tensor.shape[1], dtype=compute, device="meta"))
    return held


def tiled_loss(twin: nn.Module) -> None:
    """Replace the forward of the model in a twin by one whose head and loss run in tiles.

    Raises:
        KbitlintError: The model has no body apart from a head over a vocabulary.
    """
    base: Any = adapters.base_of(twin)
    body = getattr(base, "base_model", base)
    head = base.get_output_embeddings() if hasattr(base, "get_output_embeddings") else None
    if body is base or head is None or getattr(base.config, "is_encoder_decoder", False):
        raise KbitlintError(f"--loss fused: {type(base).__name__} has no language model's head that could run in tiles")

    def forward(*args: Any, labels: Tensor, **kwargs: Any) -> _Output:
        hidden = body(*args, **kwargs).last_hidden_state[:, :-1]
        targets = labels[:, 1:]
        mask = targets != -100
        rows = mask.nonzero(as_tuple=True)  # as CUDA does for an index by a mask
        logarithms = _Tiled.apply(hidden[rows], head.weight, targets[rows])  # type: ignore[no-untyped-call]  # torch's
        spread = logarithms.new_zeros(mask.shape).masked_scatter(mask, logarithms)
        return _Output(loss=-spread.sum() / mask.sum())

    forward.__signature__ = inspect.signature(base.forward)  # type: ignore[attr-defined]  # the batch is made from it
    base.__dict__["forward"] = forward


class _Output(dict[str, Tensor]):
    """A model's output with its loss alone."""

    @property
    def loss(self) -> Tensor:
        """The loss."""
        return self["loss"]
