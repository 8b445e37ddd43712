"""The conditions of a denoiser: what the transformers and UNets of diffusion models need beside the noisy sample.

They default to None in many classes, and the forward needs them all the same. Their names are shared by diffusers' classes.
"""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING, Any

import torch

from kbitlint.model.inputs.tensors import made_for

if TYPE_CHECKING:
    from collections.abc import Mapping

    from kbitlint.model.inputs.dimensions import Dimensions
    from kbitlint.model.inputs.interface import Argument
    from kbitlint.model.inputs.plan import Plan

#: The shape of a condition whose class documents none.
_USUAL: dict[str, tuple[str, ...]] = {
    "timestep": ("batch_size",),
    "encoder_hidden_states": ("batch_size", "sequence_length", "embed_dims"),
    "pooled_projections": ("batch_size", "projection_dim"),
    "encoder_attention_mask": ("batch_size", "sequence_length"),
    "encoder_hidden_states_mask": ("batch_size", "sequence_length"),
    "img_ids": ("sequence_length", "3"),
    "txt_ids": ("sequence_length", "3"),
}
_SAMPLES = ("hidden_states", "sample")


def is_denoiser(arguments: Mapping[str, Argument]) -> bool:
    """Return whether a forward denoises a sample at a time step."""
    return "timestep" in arguments and any(name in arguments for name in _SAMPLES)


def conditions_of(arguments: Mapping[str, Argument], dimensions: Dimensions, dtype: torch.dtype, plan: Plan) -> dict[str, Any]:
    """Return the conditions of a denoiser.

    Args:
        arguments: The arguments of its forward.
        dimensions: The dimensions of the batch.
        dtype: The dtype of floating-point inputs.
        plan: The changes of the batch.
    """
    made: dict[str, Any] = {}
    for name, shape in _USUAL.items():
        if name in arguments and (name != "encoder_attention_mask" or arguments[name].required):
            argument = arguments[name]
            made[name] = made_for(dataclasses.replace(argument, shape=argument.shape or shape), dimensions, dtype, plan)
    if "guidance" in arguments and getattr(dimensions.config, "guidance_embeds", False):
        made["guidance"] = torch.ones(dimensions.batch, dtype=dtype)
    if "added_cond_kwargs" in arguments:
        made["added_cond_kwargs"] = _added(dimensions, dtype)
    edge = math.isqrt(dimensions.seq_len)  # a square image or one frame of a video, as a row of patches
    if "img_shapes" in arguments:
        made["img_shapes"] = [(1, edge, edge)] * dimensions.batch
    if {"num_frames", "height", "width"} <= arguments.keys() and len(arguments["hidden_states"].shape or ()) == 3:
        made |= {"num_frames": 1, "height": edge, "width": edge}
    return made


def _added(dimensions: Dimensions, dtype: torch.dtype) -> dict[str, Any]:
    """Return the further conditions of a UNet: those of SDXL's text and sizes, and none of PixArt's."""
    steps = dimensions.field(("addition_time_embed_dim",))
    if not steps:
        return {"resolution": None, "aspect_ratio": None}
    width = (dimensions.field(("projection_class_embeddings_input_dim",)) or 0) - 6 * steps
    batch = dimensions.batch
    return {"text_embeds": torch.randn(batch, max(width, 1), dtype=dtype), "time_ids": torch.zeros(batch, 6, dtype=dtype)}
