"""Stubs of kernels that cannot run without weights: quantized layers and fused attention.

A stub has the output shape, the dtype, the gradient edges and the memory of its kernel. It computes no values. What it makes
is a new tensor of the one in which it is linear, so that a step knows that zeros stay zeros (``kbitlint.model.trace.zeros``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from kbitlint.upstream.quantization import method_named

if TYPE_CHECKING:
    from collections.abc import Callable

    from kbitlint.facts.layers import Packing


#: Under this name a layer of a twin holds a tensor that counts as zeros, if its packed weight unpacks to zeros only.
BLANK = "kbitlint_blank"


def _unpacked(blank: Tensor | None, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    return torch.empty(shape, dtype=dtype, device="meta") if blank is None else blank.new_empty(shape, dtype=dtype)


class _Multiply(torch.autograd.Function):
    """``linear`` with a weight that is unpacked for each product and then freed, forward and backward."""

    @staticmethod
    def forward(  # noqa: PLR0913, PLR0917  # autograd passes arguments by position
        ctx: Any,
        incoming: Tensor,
        bias: Tensor | None,
        adapter: Tensor | None,
        shape: tuple[int, int],
        unpacked: torch.dtype | None,
        integers: bool,  # noqa: FBT001  # autograd passes arguments by position
        blank: Tensor | None,
    ) -> Tensor:
        ctx.shape, ctx.incoming, ctx.bias, ctx.blank = shape, (incoming.shape, incoming.dtype), bias, blank
        ctx.adapter = None if adapter is None else adapter.shape
        if integers:
            return _integer_product(ctx, incoming, shape)
        weight = _unpacked(blank, shape, unpacked or incoming.dtype)
        product = functional.linear(incoming, weight, bias)
        # code may write into a slice of the sum that an adapter makes, and autograd forbids it for a view made in here
        return product if adapter is None else product.new_empty(product.shape)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (outgoing,) = gradients
        shape, dtype = ctx.incoming
        incoming = bias = adapter = None
        if ctx.needs_input_grad[0]:
            incoming = (outgoing @ _unpacked(ctx.blank, ctx.shape, outgoing.dtype)).to(dtype).reshape(shape)
        if ctx.needs_input_grad[1]:
            bias = torch.empty_like(ctx.bias)
        if ctx.needs_input_grad[2]:
            adapter = torch.empty(ctx.adapter, device="meta")
        return incoming, bias, adapter, None, None, None, None


def _integer_product(ctx: Any, incoming: Tensor, shape: tuple[int, int]) -> Tensor:
    """Return the product of LLM.int8() on CUDA, with the memory of ``MatMul8bitLt`` of bitsandbytes 0.50.

    Its context holds the input as an attribute and not as a saved tensor, so checkpointing frees none of them. Rows become
    float16 and then int8. The product is int32, and float16 before it gets its dtype.
    """
    rows = incoming.reshape(-1, incoming.shape[-1])
    ctx.input = rows if any(ctx.needs_input_grad[:2]) else None
    halves = rows.to(torch.float16)
    integers = torch.empty(halves.shape, dtype=torch.int8, device="meta")
    del halves
    product = torch.empty((len(rows), shape[0]), dtype=torch.int32, device="meta")
    halves = torch.empty(product.shape, dtype=torch.float16, device="meta")
    del product, integers
    return halves.to(incoming.dtype).reshape(*incoming.shape[:-1], shape[0])


class _Gives(torch.autograd.Function):
    """A module of unknown features. Its output has the shape and dtype of its input."""

    @staticmethod
    def forward(ctx: Any, incoming: Tensor, adapter: Tensor | None) -> Tensor:
        ctx.adapter = None if adapter is None else adapter.shape
        return torch.empty_like(incoming)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (outgoing,) = gradients
        return torch.empty_like(outgoing), None if ctx.adapter is None else torch.empty(ctx.adapter, device="meta")


class KernelError(RuntimeError):
    """An error that a real kernel raises too, whatever the batch is."""


def _refuse_transposed(features: tuple[int, int]) -> None:
    """Raise the error of a 4-bit layer of two weights. They are one byte of shape [1, 1].

    ``dequantize_4bit`` of bitsandbytes 0.50 transposes weights whose packed form has one row, and so does not fit the gradient.
    """
    fan_in, fan_out = features
    raise KernelError(
        f"mat1 and mat2 shapes cannot be multiplied: bitsandbytes' backward pass transposes the {fan_out} x {fan_in} weight"
    )


def stand_in(module: nn.Module, packing: Packing, device: str, adapter: Tensor | None = None) -> Callable[..., Tensor]:
    """Return a forward for a quantized layer that needs no weight.

    Args:
        module: The layer. Its bias takes part in the product.
        packing: How the weight is packed. If its features are None, the output has the shape of the input.
        device: The device whose kernels are simulated, ``cpu`` or ``cuda``.
        adapter: A scalar in place of an adapter on this layer. It receives a gradient if the adapter would. None adds no
            scalar.
    """
    features, as_is = packing.features, method_named(packing.method).keeps_input
    cuts = packing.trains is False and method_named(packing.method).cuts
    compute = getattr(torch, packing.compute_dtype) if packing.compute_dtype else None
    if features is None:
        return lambda incoming, *_, **__: _Gives.apply(incoming, adapter)  # type: ignore[no-any-return,no-untyped-call]  # torch's
    fan_in, fan_out = features
    fails = packing.method == "bitsandbytes" and packing.bits == 4 and fan_in * fan_out == 2

    def forward(incoming: Tensor, *_: Any, **__: Any) -> Tensor:
        dtype = incoming.dtype
        bias: Any = module._parameters.get("bias")  # noqa: SLF001  # a dictionary read; layers without bias may lack the attribute
        passing = incoming.detach() if cuts else incoming
        wide = passing if compute is None or as_is else passing.to(compute)
        if bias is not None and bias.dtype is not wide.dtype:
            if packing.method == "bitsandbytes" and not bias.is_inference():  # it changes the parameter itself
                bias.data = bias.data.to(wide.dtype)
            bias = bias.to(wide.dtype)
        backwards = wide.shape[-1] == fan_out != fan_in and packing.method == "bitsandbytes" and packing.bits == 4
        integers = packing.method == "bitsandbytes" and packing.bits == 8 and device == "cuda"
        shape = (fan_in, fan_out) if backwards else (fan_out, fan_in)  # bitsandbytes accepts a transposed weight with a warning
        unpacked = compute if as_is else None
        backward_fails = fails and wide.requires_grad and torch.is_grad_enabled()
        blank = module.__dict__.get(BLANK)
        product: Tensor = _Multiply.apply(wide, bias, adapter, shape, unpacked, integers, blank)  # type: ignore[no-untyped-call]  # torch's
        if backward_fails and product.requires_grad:
            product.register_hook(lambda _: _refuse_transposed(features))
        # bitsandbytes calls torch's own linear for int8 on the CPU, so its output has the autocast dtype
        autocast_shows = packing.bits == 8 and device == "cpu"
        return product if autocast_shows else product.to(dtype)

    return forward


class _Attend(torch.autograd.Function):
    """Fused attention. It saves its inputs, its output and one float32 number for each row. It never stores the scores."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
        # Both flash kernels lay out their output as (batch, sequence, heads, features), so that merging heads copies nothing.
        batch, heads, length = query.shape[0], query.shape[-3], query.shape[-2]
        out = value.new_empty((batch, length, heads, value.shape[-1])).transpose(1, 2)
        rows = torch.empty((batch, heads, length), device="meta")
        ctx.save_for_backward(query, key, value, mask, out, rows)
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (outgoing,) = gradients
        query, key, value, *__ = ctx.saved_tensors
        made = (outgoing.new_empty_strided(one.shape, one.stride(), dtype=one.dtype) for one in (query, key, value))
        return (*made, None)


def _heads_fit(query: Tensor, key: Tensor, value: Tensor, *, grouped: bool) -> bool:
    """Return whether a fused kernel accepts these numbers of heads and sequences.

    No fused kernel repeats heads or sequences itself, as multi-query attention of Falcon requires.
    """
    heads = {tensor.shape[1] for tensor in (key, value)}
    several = {tensor.shape[0] for tensor in (query, key, value)}
    same = heads == {query.shape[1]} or (grouped and len(heads) == 1 and query.shape[1] % key.shape[1] == 0)
    return same and len(several) == 1 and all(tensor.stride(-1) == 1 for tensor in (query, key, value))


def _cuda_takes(query: Tensor, key: Tensor, mask: Tensor | None) -> bool:
    """Return whether one of CUDA's fused kernels accepts the call: flash, or the memory-efficient one.

    Flash takes half precision without a mask, up to 256 features. The other one takes any dtype and mask, but repeats no
    heads (``sdp_utils.cpp`` of torch 2.11, where an H200 stored the scores of float32 queries with fewer key heads).
    """
    half = query.dtype in (torch.float16, torch.bfloat16)
    return (half and mask is None and query.shape[-1] <= 256) or query.shape[1] == key.shape[1]


def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,  # noqa: FBT001, FBT002  # torch's own signature
    *,
    device: str = "cpu",
    **options: Any,
) -> Tensor:
    """Run ``scaled_dot_product_attention`` with the memory of a device's fused kernels. Other inputs run step by step.

    The arguments are those of ``torch.nn.functional.scaled_dot_product_attention``, and ``device`` is ``cpu`` or ``cuda``.
    """
    dtypes = {tensor.dtype for tensor in (query, key, value)}
    mask_fits = attn_mask is None or attn_mask.dtype in (torch.bool, torch.float32, query.dtype)
    fused = (
        len(dtypes) == 1
        and mask_fits
        and query.is_floating_point()
        and query.ndim == key.ndim == value.ndim == 4
        and query.shape[-1] == key.shape[-1] == value.shape[-1]
        and _heads_fit(query, key, value, grouped=bool(options.get("enable_gqa")))
        and (attn_mask is None or (attn_mask.ndim in (2, 4) and not attn_mask.requires_grad))
        and (dropout_p == 0.0 or device == "cuda")  # the flash kernel of the CPU has no dropout
        and (device != "cuda" or _cuda_takes(query, key, attn_mask))
        and query.is_meta
    )
    if fused:
        if attn_mask is not None and attn_mask.dtype is torch.bool:  # the kernel saves the mask that it adds to the scores
            attn_mask = torch.empty(attn_mask.shape, dtype=query.dtype, device="meta")
        return _Attend.apply(query, key, value, attn_mask)  # type: ignore[no-any-return,no-untyped-call]  # torch's
    options = {"attn_mask": attn_mask, "dropout_p": dropout_p, "is_causal": is_causal, **options}
    return functional.scaled_dot_product_attention(query, key, value, **options)
