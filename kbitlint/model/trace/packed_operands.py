"""Code that takes shapes or dtypes from a packed weight: ``factor.reshape(layer.weight.shape)``, ``x.to(layer.weight.dtype)``.

No operator reads the weight itself, so the step raises at some later one. Its operands then have the shape of the bytes, one
column or one row of them, or their dtype. Nothing else in a model or in a made batch has these.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from kbitlint.model.trace.dispatch_mode import MetaKernels
from kbitlint.model.trace.ledger import Refusal
from kbitlint.model.trace.zeros import storage_key

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kbitlint.model.trace.recorder import StepRecorder


def note_packed_operands(step: StepRecorder, error: BaseException, where: str) -> bool:
    """Return whether an operator raised because an operand is like a packed weight, and record it.

    An operand of its dtype is a refusal. One that has the shape of its bytes is a read of that weight.

    Args:
        step: The recorder, whose ledger gets the read.
        error: The error that ended the step.
        where: The path of the module that raised.
    """
    module, ledger, operands = step.modules.get(where), step.ledger, _operands(error)
    dtypes = tuple(operand.dtype for operand in operands if isinstance(operand, Tensor))
    if any(dtype in ledger.packed_dtypes and not dtype.is_floating_point for dtype in dtypes):
        refusal = Refusal(where, ledger.last_operator, dtypes, ledger.in_backward)
        ledger.refusals.setdefault((where, refusal.operator), refusal)
        return True
    bytes_of = dict(_packed_shapes(module, step)) if module is not None else {}
    for shape in _shapes(operands) if bytes_of else ():
        path = bytes_of.get(shape) or bytes_of.get(shape[::-1])
        if path:
            ledger.packed_reads.setdefault((path, where), ledger.last_operator)
            return True
    return False


def _packed_shapes(module: nn.Module, step: StepRecorder) -> Iterator[tuple[tuple[int, ...], str]]:
    """Yield (shape of the bytes, path of the layer) of each weight in a module whose bytes have another shape than it."""
    for layer in module.modules():
        weight = layer._parameters.get("weight")  # noqa: SLF001  # a dictionary read; the attribute may be a property
        path = step.ledger.packed.get(storage_key(weight)) if weight is not None else None
        features = getattr(layer, "out_features", None), getattr(layer, "in_features", None)
        if weight is not None and path and tuple(weight.shape) != features and weight.numel() > 1:
            yield tuple(weight.shape), path


def _operands(error: BaseException) -> tuple[Any, ...]:
    """Return the operands of the operator that raised, or nothing if no operator did."""
    frames, found = error.__traceback__, ()
    while frames is not None:
        if frames.tb_frame.f_code is MetaKernels._answer.__code__:  # noqa: SLF001  # the frame in which each operator runs
            found = frames.tb_frame.f_locals.get("args", ())
        frames = frames.tb_next
    return found


def _shapes(operands: tuple[Any, ...]) -> Iterator[tuple[int, ...]]:
    """Yield the shape of each tensor, and each list of sizes, among operands."""
    for operand in operands:
        if isinstance(operand, Tensor):
            yield tuple(operand.shape)
        elif isinstance(operand, (list, tuple)):
            if all(isinstance(size, int) for size in operand):
                yield tuple(operand)
            else:
                yield from _shapes(tuple(operand))
