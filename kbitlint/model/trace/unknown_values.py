"""Answers to operators whose result depends on values that do not exist without weights."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from kbitlint.model.trace.kernel_dtypes import GROUPED_MM

if TYPE_CHECKING:
    from collections.abc import Callable

    from kbitlint.model.trace.ledger import Ledger

aten = torch.ops.aten


def on_meta(value: Any) -> Any:
    """Return the same arguments with an empty meta tensor in place of each real tensor."""
    if isinstance(value, Tensor):
        return value if value.is_meta else torch.empty_strided(value.shape, value.stride(), dtype=value.dtype, device="meta")
    if type(value) in (list, tuple):
        return type(value)(map(on_meta, value))
    if isinstance(value, dict):
        return {key: on_meta(item) for key, item in value.items()}
    return value


#: If code branches on a 0-d result of one of these operators, the value is False; of other operators, True.
#: Examples are ``any()`` of a mask, ``expert == num_experts``, and LayerDrop's ``torch.rand([]) < p``.
_UNLIKELY = frozenset(
    [aten.any.default, aten.any.dim]
    + [getattr(getattr(aten, name), kind) for name in ("eq", "lt", "gt", "le", "ge") for kind in ("Scalar", "Tensor")]
)
_REDUCTIONS = frozenset([aten.sum.default, aten.sum.dim_IntList, aten.any.default, aten.any.dim, aten.count_nonzero.default])
_IS_NAN = frozenset([aten.isnan.default, aten.isinf.default])
#: Operators that may set an expected value on their result. No other operator does.
_TELLING = _UNLIKELY | _REDUCTIONS | _IS_NAN | {aten.ne.Tensor}
#: The attribute of a tensor without contents that holds its expected value.
_EXPECTED = "_kbitlint_expected"
#: The attribute of a mask without contents that holds the share of its elements expected to be true.
#: The operators of ``_SELECTING`` keep it.
_SHARE = "_kbitlint_share"
#: The attribute of indices, and of masks made of them, that holds their exclusive upper bound.
#: transformers 5 has one class more than experts, for the tokens of experts on other ranks.
_BELOW = "_kbitlint_below"
_SELECTING = frozenset(
    [
        aten.index.Tensor,
        aten.select.int,
        aten.slice.Tensor,
        aten.permute.default,
        aten.transpose.int,
        aten.squeeze.default,
        aten.squeeze.dim,
        aten.unsqueeze.default,
        aten.view.default,
        aten._to_copy.default,  # noqa: SLF001  # an operator's name, as the dispatcher spells it
    ]
)
#: Operators over all indices. Their results keep the number of classes as a dimension.
_COUNTING = frozenset([*_SELECTING, aten.sum.dim_IntList, aten.gt.Scalar, aten.ne.Scalar, aten.any.dim, aten.any.dims])


def expect(func: Any, args: Any, result: Tensor) -> None:
    """Set the expected value of a result.

    No element is NaN, so counts of NaN are 0. Rare conditions are False. Shares and bounds are passed on.
    """
    first = args[0] if args and isinstance(args[0], Tensor) else None
    for kept, keeping in ((_SHARE, _SELECTING), (_BELOW, _COUNTING)):
        if func in keeping and hasattr(first, kept):
            setattr(result, kept, getattr(first, kept))
    if func in _SELECTING:
        return
    if func not in _TELLING:
        return
    expected = getattr(first, _EXPECTED, None)
    is_nan = func in _IS_NAN or (func is aten.ne.Tensor and first is args[1])
    if func is aten.eq.Scalar and expected is not None:
        setattr(result, _EXPECTED, int(expected == args[1]))
    elif is_nan or (func in _REDUCTIONS and expected == 0) or (func in _UNLIKELY and result.ndim == 0):
        setattr(result, _EXPECTED, 0)


def one_hot(_: Ledger, func: Any, args: Any, kwargs: Any) -> Any:
    """Return a one-hot tensor. If its contents are unknown, each class is expected equally often.

    A router is thus assumed to send the same number of tokens to each expert.
    """
    result = func(*args, **kwargs)
    if result.is_meta:
        below = min(getattr(args[0], _BELOW, result.shape[-1]), result.shape[-1])
        setattr(result, _SHARE, 1 / below)
        setattr(result, _BELOW, below)
    return result


def _topk(_: Ledger, func: Any, args: Any, kwargs: Any) -> Any:
    """Return values and indices. The indices are below the size of the input, which is a router's number of experts."""
    values, indices = func(*on_meta(args), **on_meta(kwargs))
    setattr(indices, _BELOW, args[0].shape[args[2] if len(args) > 2 else kwargs.get("dim", -1)])
    return values, indices


def _value_of(ledger: Ledger, _: Any, args: Any, __: Any) -> Any:
    """Return the expected value of a scalar without contents, or 1 if it has none."""
    tensor = args[0]
    ledger.guess("value")
    value = getattr(tensor, _EXPECTED, 1)
    return bool(value) if tensor.dtype is torch.bool else float(value) if tensor.is_floating_point() else value


def _nonzero(ledger: Ledger, _: Any, args: Any, __: Any) -> Any:
    """Return the indices of the elements that are expected to be true: all of them, or the expected share.

    If a whole 1-d mask is expected to be true, its indices are known. A loop over the selected experts, as in transformers 4,
    then visits each expert once.
    """
    ledger.guess("nonzero")
    tensor = args[0]
    share = getattr(tensor, _SHARE, 1)
    if tensor.ndim == 1 and share == 1:
        return torch.arange(min(tensor.numel(), getattr(tensor, _BELOW, tensor.numel()))).unsqueeze(1)
    rows = max(1, round(tensor.numel() * share)) if tensor.numel() else 0
    return torch.empty((rows, tensor.ndim), dtype=torch.long, device="meta")


def _masked_select(ledger: Ledger, _: Any, args: Any, __: Any) -> Any:
    tensor, mask = args[0], args[1]
    if mask.is_meta:
        ledger.guess("masked_select")
        count = max(tensor.numel(), mask.numel())
    else:
        count = int(mask.expand(torch.broadcast_shapes(tensor.shape, mask.shape)).sum())
    return tensor.new_empty((count,))


def _index(ledger: Ledger, func: Any, args: Any, kwargs: Any) -> Any:
    """Index a tensor. A known mask selects its true elements; an unknown mask is assumed to be true everywhere."""
    tensor, indices = args[0], args[1]
    _check_masks(tensor, indices)
    made: list[Tensor | None] = []
    for index in indices:
        if index is None or index.dtype not in (torch.bool, torch.uint8):
            made.append(index)
        elif index.is_meta:
            ledger.guess("index by mask")
            made += [torch.empty((index.numel(),), dtype=torch.long, device="meta") for _ in range(index.ndim)]
        else:
            made += list(index.nonzero(as_tuple=True))
    return func(on_meta(tensor), on_meta(made), **kwargs)


def _check_masks(tensor: Tensor, indices: Any) -> None:
    """Raise the error of the real kernel if a mask has another shape than the dimensions that it selects from."""
    place = 0
    for index in indices:
        masks = index is not None and index.dtype in (torch.bool, torch.uint8)
        width = index.ndim if masks else 1
        if masks and index.shape != tensor.shape[place : place + width]:
            raise IndexError(
                f"The shape of the mask {list(index.shape)} at index 0 does not match the shape of the indexed tensor "
                f"{list(tensor.shape)} at index {place}"
            )
        place += width


def _unique(ledger: Ledger, _: Any, args: Any, __: Any) -> Any:
    ledger.guess("unique")
    values = args[0].new_empty((args[0].numel(),))
    numbers = torch.empty(args[0].shape, dtype=torch.long, device="meta")
    return values, numbers, numbers.new_empty(values.shape)


def _histc(_: Ledger, __: Any, args: Any, kwargs: Any) -> Any:
    return args[0].new_empty((kwargs.get("bins", args[1] if len(args) > 1 else 100),))


def _bincount(ledger: Ledger, _: Any, args: Any, kwargs: Any) -> Any:
    least = kwargs.get("minlength", args[2] if len(args) > 2 else 0)
    if not least:
        ledger.guess("bincount")
    return torch.empty((least or 1,), dtype=torch.long, device="meta")


def _repeat_interleave(ledger: Ledger, _: Any, args: Any, kwargs: Any) -> Any:
    count = kwargs.get("output_size")
    if count is None:
        ledger.guess("repeat_interleave")
    return torch.empty((count or args[0].numel(),), dtype=torch.long, device="meta")


def _grouped_mm(_: Ledger, __: Any, args: Any, ___: Any) -> Any:
    """Return the shape of a grouped product. The groups are rows of 2-d operands, and matrices of 3-d operands."""
    left, right = args[0], args[1]
    if left.ndim == 2 and right.ndim == 2:
        return left.new_empty((args[2].shape[0], left.shape[0], right.shape[1]))
    rows = (left.shape[1],) if left.ndim == 3 and right.ndim == 2 else tuple(left.shape[:-1])
    return left.new_empty((*rows, right.shape[-1]))


def _normalise(ledger: Ledger, func: Any, args: Any, kwargs: Any) -> Any:
    """Run a layer or group norm. Mean and deviation are float32 on CUDA, and have the dtype of the parameters on the CPU."""
    out, mean, deviation = func(*on_meta(args), **on_meta(kwargs))
    weight = next((value for value in args[1:] if isinstance(value, Tensor)), args[0])
    kept = weight.dtype if ledger.device == "cpu" else mean.dtype
    return out, mean.to(kept), deviation.to(kept)


def _equal(ledger: Ledger, _: Any, __: Any, ___: Any) -> Any:
    ledger.guess("equal")
    return True


def _ctc_loss(_: Ledger, __: Any, args: Any, ___: Any) -> Any:
    """Return the loss of each sample, and the table that the backward pass reads. Meta has no such kernel."""
    scores, targets, lengths = args[0], args[1], args[3]
    samples = scores.shape[1] if scores.ndim == 3 else 1
    known = not isinstance(lengths, Tensor) or not lengths.is_meta
    longest = int(max(lengths)) if known and len(lengths) else targets.shape[-1]
    return scores.new_empty((samples,)), scores.new_empty((samples, scores.shape[0], 2 * longest + 1))


def _ctc_loss_backward(_: Ledger, __: Any, args: Any, ___: Any) -> Any:
    return torch.empty_like(args[1])


def _pack(ledger: Ledger, func: Any, args: Any, kwargs: Any) -> Any:
    """Pack sequences of known lengths, or of the full length. The lengths stay on the CPU, where torch reads them."""
    data, lengths, *rest = args
    if lengths.is_meta:
        ledger.guess("lengths")
        first = bool(rest and rest[0])
        lengths = torch.full(tuple(lengths.shape), data.shape[1 if first else 0], device="cpu")
    return func(on_meta(data), lengths, *rest, **kwargs)


def _unpack(_: Ledger, func: Any, args: Any, kwargs: Any) -> Any:
    return func(on_meta(args[0]), *args[1:], **kwargs)


ANSWERS: dict[Any, Callable[[Ledger, Any, Any, Any], Any]] = {
    aten._local_scalar_dense.default: _value_of,  # noqa: SLF001  # an operator's name, as the dispatcher spells it
    aten.nonzero.default: _nonzero,
    aten.argwhere.default: _nonzero,
    aten.masked_select.default: _masked_select,
    aten.index.Tensor: _index,
    aten._unique2.default: _unique,  # noqa: SLF001  # see above
    aten.unique_consecutive.default: _unique,
    aten.unique_dim.default: _unique,
    aten.histc.default: _histc,
    aten.bincount.default: _bincount,
    aten.repeat_interleave.Tensor: _repeat_interleave,
    **({GROUPED_MM: _grouped_mm} if GROUPED_MM is not None else {}),
    aten.equal.default: _equal,
    aten._ctc_loss.default: _ctc_loss,  # noqa: SLF001  # see above
    aten._ctc_loss.Tensor: _ctc_loss,  # noqa: SLF001  # see above
    aten._ctc_loss_backward.default: _ctc_loss_backward,  # noqa: SLF001  # see above
    aten._ctc_loss_backward.Tensor: _ctc_loss_backward,  # noqa: SLF001  # see above
    aten._pack_padded_sequence.default: _pack,  # noqa: SLF001  # see above
    aten._pad_packed_sequence.default: _unpack,  # noqa: SLF001  # see above
    aten.topk.default: _topk,
    aten.native_layer_norm.default: _normalise,
    aten.native_group_norm.default: _normalise,
}
