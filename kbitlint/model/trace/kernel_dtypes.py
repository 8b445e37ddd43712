"""Mixes of dtypes that real kernels refuse, and the casts of autocast.

Meta kernels accept any mix of dtypes, so a run without weights checks them here. Each row was tried on the CPU kernels of torch
2.13. ``tests/model/test_kernel_dtypes.py`` tries them again. CUDA differs in these points:

- ``layer_norm`` and ``group_norm`` accept float32 parameters with half-precision input on the CPU. CUDA refuses every mix.
  ``batch_norm`` accepts that mix on both.
- autocast on CUDA also computes norms, softmax, sums and powers in float32, and returns float32. On the CPU it leaves them
  unchanged.

Two further rows of CUDA were tried on an H200 (torch 2.11): its Fourier transforms refuse bfloat16 and take float16, and a
scalar beyond the range of half precision does not become a tensor, as in ``torch.where``. The CPU makes it an infinity.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from kbitlint.lazy_dataclass import dataclass
from kbitlint.model.layers.norm_interface import HALF

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

aten = torch.ops.aten
#: The grouped matrix product of experts. It is None in torch 2.6, which lacks the operator.
GROUPED_MM: Any = getattr(getattr(aten, "_grouped_mm", None), "default", None)


def _addmv() -> tuple[int, ...]:
    """Return the positions of the arguments of ``addmv`` whose dtypes must agree.

    torch 2.9 accepts any dtype of the first argument, and 2.13 refuses a mix. The change lies between them, so a call decides.
    """
    shapes: Any = [(1, HALF[0]), ((1, 1), torch.float32), (1, torch.float32)]
    try:
        torch.addmv(*(torch.ones(shape, dtype=dtype, device="cpu") for shape, dtype in shapes))
    except RuntimeError:
        return (0, 1, 2)
    return (1, 2)


#: operator -> positions of the tensors whose dtypes must be equal
_SAME: dict[Any, tuple[int, ...]] = {
    aten.mm.default: (0, 1),
    aten.bmm.default: (0, 1),
    aten.addmm.default: (0, 1, 2),
    aten.baddbmm.default: (0, 1, 2),
    aten.addbmm.default: (0, 1, 2),
    aten.mv.default: (0, 1),
    aten.addmv.default: _addmv(),
    aten.dot.default: (0, 1),
    aten.vdot.default: (0, 1),
    **({GROUPED_MM: (0, 1)} if GROUPED_MM is not None else {}),
    aten.convolution.default: (0, 1, 2),
    aten.index_add.default: (0, 3),
    aten.index_add_.default: (0, 3),
    aten.index_copy.default: (0, 3),
    aten.index_copy_.default: (0, 3),
    aten.index_put.default: (0, 2),
    aten.index_put_.default: (0, 2),
    aten._index_put_impl_.default: (0, 2),
    aten._unsafe_index_put.default: (0, 2),  # noqa: SLF001  # an operator's name, as the dispatcher spells it
    aten.scatter.src: (0, 3),
    aten.scatter_.src: (0, 3),
    aten.scatter_add.default: (0, 3),
    aten.scatter_add_.default: (0, 3),
    aten.scatter_reduce.two: (0, 3),
    aten.scatter_reduce_.two: (0, 3),
    aten.masked_scatter.default: (0, 2),
    aten.masked_scatter_.default: (0, 2),
    aten.lerp.Scalar: (0, 1),
    aten.lerp.Tensor: (0, 1),
    aten._prelu_kernel.default: (0, 1),  # noqa: SLF001  # see above
    aten.grid_sampler_2d.default: (0, 1),
    aten.grid_sampler_3d.default: (0, 1),
    aten._cdist_forward.default: (0, 1),  # noqa: SLF001  # see above
    aten.nll_loss_forward.default: (0, 2),
    aten.nll_loss2d_forward.default: (0, 2),
}

#: operators whose kernels exist for float32 and wider only, on the CPU and on CUDA
_WIDE_ONLY = frozenset([aten._cdist_forward.default])  # noqa: SLF001  # see above

#: operator -> positions of a norm's input and of its parameters
_NORMS: dict[Any, tuple[int, ...]] = {
    aten.native_layer_norm.default: (0, 2, 3),
    aten.native_group_norm.default: (0, 1, 2),
    aten.native_batch_norm.default: (0, 1, 2, 3, 4),
    aten._native_batch_norm_legit.default: (0, 1, 2, 3, 4),  # noqa: SLF001  # see above
    aten._batch_norm_with_update.default: (0, 1, 2, 3, 4),  # noqa: SLF001  # see above
}
_MIXED_ON_CUDA_TOO = frozenset(func for func in _NORMS if "batch_norm" in str(func))
_FILLS = frozenset([aten.masked_fill.Scalar, aten.masked_fill_.Scalar])
#: device -> dtypes that its Fourier transforms refuse
_NOT_TRANSFORMED = {"cpu": frozenset([*HALF, torch.complex32]), "cuda": frozenset([torch.bfloat16])}
_FOURIER = frozenset([aten._fft_r2c.default, aten._fft_c2r.default, aten._fft_c2c.default])  # noqa: SLF001  # see above


def refused(func: Any, args: Sequence[Any], device: str, dtype: torch.dtype | None = None) -> tuple[torch.dtype, ...]:
    """Return the dtypes for which the real kernel of a device would raise. The tuple is empty if the kernel runs.

    Args:
        func: The operator overload that a dispatch mode receives.
        args: Its positional arguments.
        device: ``cpu`` or ``cuda``.
        dtype: The dtype that the call asks for, or None.
    """
    if func in _WIDE_ONLY and args[0].dtype in HALF:
        return _dtypes(args, (0, 1))
    if func in _SAME:  # integers count as well: code that reads a packed weight itself multiplies by bytes
        dtypes = _dtypes(args, _SAME[func])
        return dtypes if len(set(dtypes)) > 1 else ()
    if func in _NORMS:
        dtypes = _dtypes(args, _NORMS[func])
        mixed = dtypes[:1] in ((HALF[0],), (HALF[1],)) and set(dtypes[1:]) == {torch.float32}
        taken = mixed and (device == "cpu" or func in _MIXED_ON_CUDA_TOO)
        return dtypes if len(set(dtypes)) > 1 and not taken else ()
    if func in _FILLS and args[0].is_floating_point() and _exceeds(args[2], args[0].dtype):
        return (args[0].dtype, torch.float32)
    if func in _FOURIER and args[0].dtype in _NOT_TRANSFORMED[device]:
        return (args[0].dtype,)
    if func is aten.scalar_tensor.default and device == "cuda" and dtype in HALF and _exceeds(args[0], dtype):
        return (dtype, torch.float32)
    return ()


def _exceeds(value: Any, dtype: torch.dtype) -> bool:
    """Return whether a finite number lies beyond the range of a dtype."""
    return isinstance(value, (int, float)) and math.isfinite(value) and abs(value) > torch.finfo(dtype).max


def refused_function(name: str, args: Sequence[Any], device: str) -> tuple[torch.dtype, ...]:
    """Return the dtype for which a torch function raises before it calls an operator. The tuple is empty if it does not raise.

    The Fourier transforms of the CPU refuse half precision, and those of CUDA refuse bfloat16. Since torch 2.15 those of meta
    accept it.

    Args:
        name: The function's ``__name__``.
        args: Its positional arguments, after autocast.
        device: ``cpu`` or ``cuda``.
    """
    if name.startswith("fft_") and args and isinstance(args[0], Tensor):
        return (args[0].dtype,) if args[0].dtype in _NOT_TRANSFORMED[device] else ()
    return ()


def _dtypes(args: Sequence[Any], positions: tuple[int, ...]) -> tuple[torch.dtype, ...]:
    tensors = [args[position] for position in positions if position < len(args)]
    return tuple(tensor.dtype for tensor in tensors if isinstance(tensor, Tensor))


def checks(func: Any) -> bool:
    """Return whether an operator may refuse the dtypes of its arguments."""
    return func in _SAME or func in _NORMS or func in _FILLS or func in _FOURIER or func is aten.scalar_tensor.default


@dataclass(frozen=True, slots=True)
class _Autocast:
    """The casts of autocast on one device, as names of torch functions."""

    lower: frozenset[str]
    """Functions that compute in the autocast dtype."""
    upper: frozenset[str]
    """Functions that compute in float32."""
    upper_result: frozenset[str]
    """Functions that return float32 if their first argument is half precision and no dtype is passed."""
    widest: frozenset[str]
    """Functions that compute in the widest dtype of their arguments."""


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


_LOWER = _names(
    """conv1d conv2d conv3d conv_tbc conv_transpose1d conv_transpose2d conv_transpose3d convolution
    linear matmul __matmul__ __rmatmul__ mm bmm addmm addbmm baddbmm einsum linalg_vecdot multi_dot prelu
    scaled_dot_product_attention multi_head_attention_forward"""
)
_LOSSES = _names(
    """binary_cross_entropy binary_cross_entropy_with_logits cdist cosine_embedding_loss cross_entropy hinge_embedding_loss
    huber_loss kl_div l1_loss margin_ranking_loss mse_loss multi_margin_loss multilabel_margin_loss nll_loss poisson_nll_loss
    smooth_l1_loss soft_margin_loss triplet_margin_loss"""
)

AUTOCAST: dict[str, _Autocast] = {
    "cpu": _Autocast(
        lower=_LOWER,
        upper=_LOSSES
        | _names(
            """adaptive_avg_pool3d adaptive_max_pool3d avg_pool3d max_pool3d ctc_loss
            fft_fft fft_fft2 fft_fftn fft_hfft fft_ifft fft_ifft2 fft_ifftn fft_ihfft fft_irfft fft_irfft2 fft_irfftn
            fft_rfft fft_rfft2 fft_rfftn grid_sample grid_sampler inverse linalg_inv linalg_solve linalg_svd nanquantile
            polar prod quantile stft trace view_as_complex"""
        ),
        upper_result=frozenset(),
        widest=_names("cat stack index_copy"),
    ),
    "cuda": _Autocast(
        lower=_LOWER | _names("mv addmv addr chain_matmul lstm_cell gru_cell"),
        upper=_LOSSES
        | _names(
            """acos asin cosh erfinv exp expm1 log log10 log2 log1p reciprocal rsqrt sinh tan pow __pow__ __rpow__ softplus
            layer_norm group_norm rms_norm cosine_similarity pdist dist renorm logsumexp interpolate norm normalize
            vector_norm linalg_vector_norm linalg_norm matrix_norm"""
        ),
        upper_result=_names("prod softmax log_softmax cumprod cumsum sum"),
        widest=_names("addcdiv addcmul atan2 bilinear cross dot vdot grid_sample grid_sampler index_put tensordot scatter_add"),
    ),
}


def autocast(
    name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any], device: str, dtype: torch.dtype
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return the arguments that autocast passes to the kernel of a torch function.

    Args:
        name: The function's ``__name__``.
        args: Its positional arguments.
        kwargs: Its keyword arguments.
        device: ``cpu`` or ``cuda``.
        dtype: The dtype of the enclosing autocast region.

    Returns:
        The positional and the keyword arguments, cast if autocast casts them.
    """
    does = AUTOCAST[device]
    if name in does.upper_result and args and isinstance(args[0], Tensor) and args[0].dtype in HALF:
        return args, {**kwargs, "dtype": torch.float32} if kwargs.get("dtype") is None else dict(kwargs)
    if name in does.lower:
        wanted = dtype
    elif name in does.upper:
        wanted = torch.float32
    elif name in does.widest:
        found: list[torch.dtype] = []
        _each((args, kwargs), lambda tensor: found.append(tensor.dtype))
        wanted = torch.float32 if torch.float32 in found or len(set(found)) > 1 else dtype
    else:
        return args, dict(kwargs)
    cast = (_cast(args, wanted), _cast(dict(kwargs), wanted))
    return cast[0], cast[1]


def _cast(value: Any, dtype: torch.dtype) -> Any:
    if isinstance(value, Tensor):
        return value.to(dtype) if _eligible(value) and value.dtype is not dtype else value
    if isinstance(value, dict):
        return {key: _cast(item, dtype) for key, item in value.items()}
    return type(value)(_cast(item, dtype) for item in value) if type(value) in (tuple, list) else value


def _each(value: Any, see: Callable[[Tensor], None]) -> None:
    if isinstance(value, Tensor):
        if _eligible(value):
            see(value)
    elif isinstance(value, dict):
        _each(list(value.values()), see)
    elif type(value) in (tuple, list):
        for item in value:
            _each(item, see)


def _eligible(tensor: Tensor) -> bool:
    """Return whether autocast may cast a tensor. It leaves float64, integers and booleans unchanged."""
    return tensor.is_floating_point() and tensor.dtype is not torch.float64
