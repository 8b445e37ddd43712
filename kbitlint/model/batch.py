"""A small training batch for any transformers model, derived from its signature and config."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from kbitlint.model import adapters

if TYPE_CHECKING:
    from collections.abc import Iterator


def training_batch(model: nn.Module, device: str | torch.device, batch: int = 2, seq_len: int = 16) -> dict[str, Tensor]:
    """Inputs and labels for one training step.

    ``input_ids`` of shape (batch, seq_len), or what the model's main input is, and labels where the class takes them.
    Token ids that the config gives a meaning (image, audio, padding, decoder start) are avoided: a text-only batch
    must not claim to hold an image.
    """
    base: Any = adapters.base_of(model)
    names = set(inspect.signature(base.forward).parameters)
    config: Any = getattr(base, "config", None)
    main = getattr(base, "main_input_name", "input_ids")
    text = config.get_text_config() if hasattr(config, "get_text_config") else config
    made: dict[str, Tensor] = {}
    if main == "pixel_values":
        made["pixel_values"] = torch.randn(_image_shape(config, batch), dtype=_float_dtype(base))
    elif main == "input_features":
        made["input_features"] = torch.randn(_audio_shape(config, batch), dtype=_float_dtype(base))
    elif main == "input_values":
        made["input_values"] = torch.randn((batch, 16000), dtype=_float_dtype(base))
    limit = min(_lengths(text), default=seq_len)
    tokens = _tokens(config, text, (batch, min(seq_len, limit)))
    if "input_ids" in names:
        made["input_ids"] = tokens
        if "attention_mask" in names:
            made["attention_mask"] = torch.ones_like(tokens)
    kind = type(base).__name__
    if "labels" in names:
        classes = max(int(getattr(config, "num_labels", 2) or 2), 1)
        if "SequenceClassification" in kind or "ImageClassification" in kind:
            made["labels"] = torch.randint(0, classes, (batch,))
        elif "TokenClassification" in kind:
            made["labels"] = torch.randint(0, classes, tuple(tokens.shape))
        else:
            made["labels"] = tokens.clone()
    elif "start_positions" in names:
        made["start_positions"] = made["end_positions"] = torch.zeros(batch, dtype=torch.long)
    return {name: tensor.to(device) for name, tensor in made.items()}


def loss_of(output: Any) -> Tensor:
    """The loss of a model's output; where the class computes none, the mean of its first floating tensor."""
    loss = getattr(output, "loss", None)
    if isinstance(loss, Tensor):
        return loss.mean()
    for value in _tensors(output):
        if value.is_floating_point():
            return value.float().mean()
    raise ValueError(f"{type(output).__name__} holds no floating tensor to train on")


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from _tensors(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _tensors(item)


def _tokens(config: Any, text: Any, shape: tuple[int, int]) -> Tensor:
    vocabulary = int(getattr(text, "vocab_size", None) or getattr(config, "vocab_size", None) or 2)
    special = {value for part in (config, text) for name, value in _items(part) if name.endswith(("_token_id", "_token_index"))}
    ordinary = [number for number in range(min(vocabulary, 512)) if number not in special] or [0]
    made = torch.tensor(ordinary)[torch.randint(0, len(ordinary), shape)]
    end = getattr(text, "eos_token_id", None)
    if isinstance(end, int) and 0 <= end < vocabulary:
        made[:, -1] = end  # text ends with it, and encoder-decoder classifiers read their answer there
    return made


def _items(config: Any) -> list[tuple[str, Any]]:
    values = config.to_dict() if hasattr(config, "to_dict") else {}
    return [(name, value) for name, value in values.items() if isinstance(value, int)]


def _lengths(config: Any) -> Iterator[int]:
    for name in ("max_position_embeddings", "n_positions", "max_target_positions", "max_source_positions"):
        value = getattr(config, name, None)
        if isinstance(value, int) and value > 0:
            yield value


def _image_shape(config: Any, batch: int) -> tuple[int, ...]:
    vision = getattr(config, "vision_config", config)
    size = getattr(vision, "image_size", 32)
    height, width = size if isinstance(size, (list, tuple)) else (size, size)
    return (batch, int(getattr(vision, "num_channels", 3)), int(height), int(width))


def _audio_shape(config: Any, batch: int) -> tuple[int, int, int]:
    audio = getattr(config, "audio_config", config)
    bins = getattr(audio, "num_mel_bins", getattr(audio, "feature_size", 80))
    return (batch, int(bins), 2 * int(getattr(audio, "max_source_positions", 1500)))


def _float_dtype(base: nn.Module) -> torch.dtype:
    """The dtype of the first unpacked floating parameter."""
    return next((p.dtype for p in base.parameters() if p.is_floating_point()), torch.float32)
