"""Images, sounds and patches of a batch."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from kbitlint.model.inputs.tokens import integers_of
from kbitlint.model.layers.norms import is_norm

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from kbitlint.model.inputs.dimensions import Dimensions
    from kbitlint.model.inputs.interface import Argument


def media_of(
    base: nn.Module, arguments: Mapping[str, Argument], main: str, dimensions: Dimensions, tokens: Tensor
) -> dict[str, Tensor]:
    """Return the inputs that are no text: an image or sound as main input, and images that accompany every text.

    If the config announces images by tokens, a batch without these tokens needs none.
    """
    config: Any = dimensions.config
    dtype, batch = float_dtype(base), dimensions.batch
    made: dict[str, Tensor] = dict(_grids(arguments, dimensions, dtype))
    if made:
        return made
    if "pixel_values" in arguments and (main == "pixel_values" or not announces_images(config)):
        made |= _images(arguments, dimensions, tokens, dtype)
    if main == "flattened_patches":
        made["flattened_patches"] = _patches(config, batch, tokens.shape[1]).to(dtype)
    elif main == "input_features" and (shape := _features_shape(config, batch)) is not None:
        made["input_features"] = torch.randn(shape, dtype=dtype)
    elif main == "input_values" and len(arguments["input_values"].shape or ("", "")) == 2:
        made["input_values"] = torch.randn((batch, 16000), dtype=dtype)
    return made


def _grids(arguments: Mapping[str, Argument], dimensions: Dimensions, dtype: torch.dtype) -> Iterator[tuple[str, Tensor]]:
    """Yield the rows of all patches and the grids of the images, as the towers of Qwen2-VL and its kin take them.

    The patches of all images are one sequence. Each row holds the pixels of one patch, of all its channels and frames.
    """
    grid = next((name for name, one in arguments.items() if name.endswith("grid_thw") and one.required), None)
    rows = next((name for name in ("hidden_states", "pixel_values") if name in arguments and arguments[name].required), None)
    if grid is None or rows is None:
        return
    edge = 2 * (dimensions.field(("spatial_merge_size", "merge_size"), "pixel_values") or 2)
    frames = dimensions.field(("temporal_patch_size",), "pixel_values") or 1
    height, width = dimensions.pair("patch_size", 14)
    features = dimensions.of("num_channels", "pixel_values") * frames * height * width
    yield rows, torch.randn(dimensions.batch * edge * edge, features, dtype=dtype)
    yield grid, torch.tensor([[1, edge, edge]] * dimensions.batch)


def _images(arguments: Mapping[str, Argument], dimensions: Dimensions, tokens: Tensor, dtype: torch.dtype) -> dict[str, Tensor]:
    """Return images, and the masks that say which tokens they belong to."""
    config, batch = dimensions.config, dimensions.batch
    shape = _image_shape(dimensions)
    made: dict[str, Tensor] = {}
    documented = arguments["pixel_values"].shape or ()
    if len(documented) > 4:
        shape = tuple(dimensions.of(symbol, "pixel_values") for symbol in documented)
    elif any("video" in name for name, _ in integers_of(config)) and not announces_images(config):  # one frame
        shape = (batch, 1, *shape[1:])
    if "image_attention_mask" in arguments:  # several images for each text, and a mask of the images that each token attends to
        shape = (batch, 1, *shape[1:])
        made["image_attention_mask"] = torch.ones((*tokens.shape, 1), dtype=torch.long)
    made["pixel_values"] = torch.randn(shape, dtype=dtype)
    if "image_embeds_position_mask" in arguments:  # the position of the image in the text
        made["image_embeds_position_mask"] = torch.zeros_like(tokens)
        made["image_embeds_position_mask"][:, 1 : 1 + int(getattr(config, "latent_query_num", 1))] = 1
    return made


def _image_shape(dimensions: Dimensions) -> tuple[int, ...]:
    return (dimensions.batch, dimensions.of("num_channels", "pixel_values"), *dimensions.image())


def announces_images(config: Any) -> bool:
    """Return whether a config, or a part of it, has a token for an image or a part of one."""
    return _has_image_token(config.to_dict() if hasattr(config, "to_dict") else {})


def _has_image_token(fields: Mapping[str, Any]) -> bool:
    if any("image" in name and name.endswith(("_id", "_index")) for name in fields):
        return True
    return any(_has_image_token(part) for name, part in fields.items() if name == "vlm_config" and isinstance(part, dict))


def _patches(config: Any, batch: int, count: int) -> Tensor:
    """Return patches of an image. Each starts with its row and column, and its pixels follow."""
    vision = getattr(config, "vision_config", config)
    patches = torch.randn(batch, count, int(getattr(vision, "patch_embed_hidden_size", 768)) + 2)
    patches[..., :2] = 1
    return patches


def _features_shape(config: Any, batch: int) -> tuple[int, int, int] | None:
    """Return the shape of Whisper's features: mel bins first, and two frames for each position. None for other encoders."""
    audio = getattr(config, "audio_config", config)
    bins, positions = getattr(audio, "num_mel_bins", None), getattr(audio, "max_source_positions", None)
    return (batch, bins, 2 * positions) if isinstance(bins, int) and isinstance(positions, int) else None


_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


def float_dtype(base: nn.Module) -> torch.dtype:
    """Return the dtype of floating-point inputs, or float32 if no parameter has one.

    It is that of a convolution that stands first, since it takes no other one. Else it is that of most parameters: the first
    one may be a router in float32, and norms and adapters have a dtype of their own.
    """
    modules = [module for module in base.modules() if not is_norm(module)]
    first = next((one for one in modules if one._parameters.get("weight") is not None), None)  # noqa: SLF001  # parameters of the module alone
    if isinstance(first, _CONVOLUTIONS) and first.weight.is_floating_point():
        return first.weight.dtype
    layers = [p for module in modules for p in module.parameters(recurse=False) if p.is_floating_point()]
    frozen = [p for p in layers if not p.requires_grad]
    found = frozen or layers or [p for p in base.parameters() if p.is_floating_point()]
    return Counter(p.dtype for p in found).most_common(1)[0][0] if found else torch.float32
