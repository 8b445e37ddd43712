"""How long a sequence of a model can be: where it has a table of positions, that long, and otherwise as long as wanted."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from torch import nn

from kbitlint.errors import KbitlintError
from kbitlint.model.layers import adapters

if TYPE_CHECKING:
    from collections.abc import Iterator

#: tokens in a sequence where nothing says how many
USUAL_LENGTH = 2048
#: a length that no position limits
UNLIMITED = 2**20


def length_for(model: nn.Module, seq_len: int | None) -> int:
    """Return the tokens of a sequence for a model: those that were asked for, or the usual number as far as it has positions.

    Raises:
        KbitlintError: The model has fewer positions than were asked for.
    """
    most = most_positions(model)
    if seq_len is not None and most < seq_len:
        if most == UNLIMITED:
            raise KbitlintError(f"--seq-len {seq_len}: no more than {UNLIMITED} tokens are measured")
        name = type(adapters.base_of(model)).__name__
        raise KbitlintError(f"--seq-len {seq_len}: {name} has a table of {most} positions; give at most {most}")
    return seq_len or min(most, USUAL_LENGTH)


def most_positions(model: nn.Module) -> int:
    """Return the most tokens that a sequence of a model can have; ``UNLIMITED`` where nothing limits it."""
    base: Any = adapters.base_of(model)
    config: Any = getattr(base, "config", None)
    return limited(base, config.get_text_config() if hasattr(config, "get_text_config") else config, UNLIMITED)


def limited(base: nn.Module, text: Any, seq_len: int) -> int:
    """Return the tokens in a sequence, limited by a table of positions. Axial position embeddings fix the number.

    Rotary and relative positions have no limit, although their configs have ``max_position_embeddings``.

    Args:
        base: The model.
        text: The part of its config that describes the text model.
        seq_len: The tokens that are wanted.
    """
    axes = getattr(text, "axial_pos_shape", None) if getattr(text, "axial_pos_embds", False) else None
    if axes:
        return math.prod(axes)
    return min([seq_len, *(limit for limit in _lengths(text) if limit < seq_len and _has_table(base, limit))])


def _has_table(base: nn.Module, limit: int) -> bool:
    """Return whether a module of the model holds a row for each of so many positions.

    Such a module is an embedding beside that of the tokens, or a buffer. Some models reserve up to two more rows for padding.
    """
    rows, tokens = range(limit, limit + 3), adapters.input_embedding(base)
    for module in base.modules():
        if isinstance(module, nn.Embedding) and module is not tokens and module.num_embeddings in rows:
            return True
        if any(buffer is not None and set(buffer.shape) & set(rows) for buffer in module._buffers.values()):  # noqa: SLF001  # of the module alone
            return True
    return False


def _lengths(config: Any) -> Iterator[int]:
    for name in ("max_position_embeddings", "n_positions", "max_target_positions", "max_source_positions"):
        value = getattr(config, name, None)
        if isinstance(value, int) and value > 0:
            yield value
