"""A small training batch for any transformers model, built from its signature and config."""

from __future__ import annotations

import inspect
import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from kbitlint.errors import KbitlintError
from kbitlint.model.layers import adapters

if TYPE_CHECKING:
    from collections.abc import Iterator


def training_batch(model: nn.Module, device: str | torch.device, batch: int = 2, seq_len: int = 16) -> dict[str, Any]:
    """Return inputs and labels for one training step.

    The inputs are ``input_ids`` of shape (batch, seq_len), or the model's main input. Labels are added if the class accepts
    them. Token ids with a meaning in the config (image, audio, padding, decoder start) are avoided. A text-only batch must not
    announce an image. The cache is off, as in transformers' Trainer.

    Args:
        model: The model. Wrappers around it are skipped.
        device: The device of the tensors.
        batch: Sequences in the batch.
        seq_len: Tokens in each sequence. Models with fewer positions get shorter ones.
    """
    base: Any = adapters.base_of(model)
    asked = _asked_for(base)
    names = set(asked)
    config: Any = getattr(base, "config", None)
    main = getattr(base, "main_input_name", "input_ids")
    text = config.get_text_config() if hasattr(config, "get_text_config") else config
    tokens = _tokens(config, text, (batch, _length(base, text, seq_len)))
    made: dict[str, Any] = _media(base, names, main, batch, tokens)
    if "pixel_values" in made:
        tokens = torch.cat([_placeholders(config, batch), tokens], dim=1)
    books = _codebooks(base)
    if "input_ids" in names:
        made["input_ids"] = tokens.repeat_interleave(books, dim=0) if books else tokens
        if "attention_mask" in names:
            made["attention_mask"] = torch.ones_like(tokens)
    elif main == "inputs":  # a class for any modality; with a vocabulary its input is text
        made["inputs"] = tokens
    if "mm_token_type_ids" in names:  # the whole batch is text
        made["mm_token_type_ids"] = torch.zeros_like(tokens)
    if "bbox" in names and "pixel_values" in made:  # the position of each token on the page
        made["bbox"] = torch.zeros((*tokens.shape, 4), dtype=torch.long)
    for name, required in asked.items():  # a second text, for a submodel with its own vocabulary
        if required and name not in made and name.endswith("_input_ids"):
            part = getattr(config, f"{name.removesuffix('_input_ids')}_config", text)
            made[name] = _tokens(part, part, tuple(tokens.shape))
    made |= _labels(base, names, config, tokens, books)
    made = {name: value.to(device) for name, value in made.items()}
    if "use_cache" in names:
        made["use_cache"] = False
    return made


def _asked_for(base: nn.Module) -> dict[str, bool]:
    """Return the parameters of a model's forward, with whether each is required."""
    found = inspect.signature(base.forward).parameters.values()
    return {parameter.name: parameter.default is inspect.Parameter.empty for parameter in found}


def _labels(base: nn.Module, names: set[str], config: Any, tokens: Tensor, books: int) -> dict[str, Tensor]:
    kind, batch = type(base).__name__, len(tokens)
    if "labels" in names:
        classes = max(int(getattr(config, "num_labels", 2) or 2), 1)
        if "SequenceClassification" in kind or "ImageClassification" in kind:
            return {"labels": torch.randint(0, classes, (batch,))}
        if "TokenClassification" in kind:
            return {"labels": torch.randint(0, classes, tuple(tokens.shape))}
        return {"labels": tokens.unsqueeze(-1).repeat(1, 1, books) if books else tokens.clone()}
    if "start_positions" in names:
        positions = torch.zeros(batch, dtype=torch.long)
        return {"start_positions": positions, "end_positions": positions}
    return {}


def _media(base: nn.Module, names: set[str], main: str, batch: int, tokens: Tensor) -> dict[str, Tensor]:
    """Return the inputs that are no text: an image or sound as main input, and images that accompany every text.

    If the config announces images by tokens, a batch without these tokens needs none.
    """
    config: Any = getattr(base, "config", None)
    dtype = _float_dtype(base)
    made: dict[str, Tensor] = {}
    if "pixel_values" in names and (main == "pixel_values" or not _announces_images(config)):
        shape = _image_shape(config, batch)
        if any("video" in name for name, _ in _items(config)) and not _announces_images(config):  # one frame
            shape = (batch, 1, *shape[1:])
        if "image_attention_mask" in names:  # several images for each text, and a mask of the images that each token attends to
            shape = (batch, 1, *shape[1:])
            made["image_attention_mask"] = torch.ones((*tokens.shape, 1), dtype=torch.long)
        made["pixel_values"] = torch.randn(shape, dtype=dtype)
        if "image_embeds_position_mask" in names:  # the position of the image in the text
            made["image_embeds_position_mask"] = torch.zeros_like(tokens)
            made["image_embeds_position_mask"][:, 1 : 1 + int(getattr(config, "latent_query_num", 1))] = 1
    if main == "flattened_patches":
        made["flattened_patches"] = _patches(config, batch, tokens.shape[1]).to(dtype)
    elif main == "input_features":
        made["input_features"] = torch.randn(_audio_shape(config, batch), dtype=dtype)
    elif main == "input_values":
        made["input_values"] = torch.randn((batch, 16000), dtype=dtype)
    return made


def _placeholders(config: Any, batch: int) -> Tensor:
    """Return the tokens that the features of an image replace. There are none if the config does not set their number."""
    names = ("image_token_index", "image_token_id", "video_token_index", "video_token_id")
    token = next((value for name in names if isinstance(value := getattr(config, name, None), int)), None)
    count = getattr(config, "num_query_tokens", None)
    shape = (batch, count if token is not None and isinstance(count, int) else 0)
    return torch.full(shape, token or 0, dtype=torch.long)


def _announces_images(config: Any) -> bool:
    """Return whether a config has a token for an image or a part of one."""
    names = config.to_dict() if hasattr(config, "to_dict") else {}
    return any("image" in name and name.endswith(("_id", "_index")) for name in names)


def _patches(config: Any, batch: int, count: int) -> Tensor:
    """Return patches of an image. Each starts with its row and column, and its pixels follow."""
    vision = getattr(config, "vision_config", config)
    patches = torch.randn(batch, count, int(getattr(vision, "patch_embed_hidden_size", 768)) + 2)
    patches[..., :2] = 1
    return patches


def _codebooks(base: nn.Module) -> int:
    """Return the number of id rows in one sequence, or 0 for one row. Models of audio codes embed each codebook separately."""
    found = adapters.input_embedding(base)
    return len(found) if isinstance(found, nn.ModuleList) else 0


#: tokens in a sequence where nothing says how many
USUAL_LENGTH = 2048


def length_of(model: nn.Module, seq_len: int | None) -> int:
    """Return the tokens of a sequence for a model: those that were asked for, or the usual number as far as it has positions.

    Raises:
        KbitlintError: The model has fewer positions than were asked for.
    """
    base: Any = adapters.base_of(model)
    config: Any = getattr(base, "config", None)
    text = config.get_text_config() if hasattr(config, "get_text_config") else config
    most = _length(base, text, max(seq_len or 0, USUAL_LENGTH))
    if seq_len is not None and most < seq_len:
        raise KbitlintError(f"--seq-len {seq_len}: {type(base).__name__} has a table of {most} positions; give at most {most}")
    return seq_len or most


def most_positions(model: nn.Module) -> int:
    """Return the most tokens that a sequence of a model can have; a million where nothing limits it."""
    base: Any = adapters.base_of(model)
    config: Any = getattr(base, "config", None)
    return _length(base, config.get_text_config() if hasattr(config, "get_text_config") else config, 2**20)


def _length(base: nn.Module, text: Any, seq_len: int) -> int:
    """Return the tokens in a sequence, limited by a table of positions. Axial position embeddings fix the number.

    Rotary and relative positions have no limit, although their configs have ``max_position_embeddings``.
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


def loss_of(output: Any) -> Tensor:
    """Return the loss of a model's output. If the class computes none, it is the mean of the first floating-point tensor.

    Raises:
        ValueError: The output holds no floating-point tensor.
    """
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
        made[:, -1] = end  # text ends with this token, and encoder-decoder classifiers read their result at it
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
    """Return the dtype of the first floating-point parameter, or float32 if there is none."""
    return next((p.dtype for p in base.parameters() if p.is_floating_point()), torch.float32)
