"""The dispatch mode of the trace. It acts below autograd: on operators, which run for shapes and dtypes only.

Floating-point tensors live on the meta device. Integers and booleans are computed for real if their inputs are known (token
ids, positions, masks). Code thus takes the branch that it takes in training. An unknown value, such as the expert that a router
selects, gets a plausible answer and counts as a guess.

To the model's code, every tensor seems to be on the CPU (``kbitlint.model.trace.function_mode``).
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from kbitlint.model.trace import kernel_dtypes
from kbitlint.model.trace.ledger import Ledger, Refusal
from kbitlint.model.trace.shape_cache import KnownShapes
from kbitlint.model.trace.unknown_values import ANSWERS, expect, on_meta

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

aten = torch.ops.aten
CPU, META = torch.device("cpu"), torch.device("meta")

#: Products of matrices. Their kernels refuse integers beside floating-point numbers, which the meta kernels accept.
_PRODUCTS = frozenset([aten.mm.default, aten.addmm.default, aten.bmm.default, aten.baddbmm.default, aten.convolution.default])

#: The largest number of elements that is computed for real. Masks of long sequences would fill the memory.
MAX_REAL = 2**22


class MetaKernels(TorchDispatchMode):
    """A dispatch mode in place of the kernels.

    It checks dtypes, computes known integers for real, and answers reads of unknown values.
    """

    def __init__(self, ledger: Ledger) -> None:
        super().__init__()
        self.ledger = ledger
        self.shapes = KnownShapes()

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Return False. Otherwise torch wraps every operator of the step to exclude the compiler, which does not run here."""
        return False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run one operator on the known part of its arguments."""
        with torch._C.DisableTorchFunction():  # noqa: SLF001  # the function mode must not act on the calls of this class
            return self._answer(func, args, kwargs or {})

    def _answer(self, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        """Run one operator, and record what it reads, detaches, guesses and allocates."""
        ledger = self.ledger
        tensors = tensors_in((*args, *kwargs.values()) if kwargs else args)
        unknown = any(tensor.is_meta for tensor in tensors)
        ledger.last = func
        if ledger.guard is not None:
            ledger.guard.see(tensors)
        if func is aten.detach.default:
            self._note_detached(tensors[0])
        else:
            self._note_uses(func, tensors)
        if kernel_dtypes.checks(func):
            args = self._matched(func, args, kwargs.get("dtype"))
        if "device" in kwargs:
            kwargs = {**kwargs, "device": META if unknown else CPU}
        result = (self._unknown if unknown else self._known)(func, args, kwargs, tensors)
        if unknown and isinstance(result, Tensor):
            expect(func, args, result)
        ledger.zeros.see(func, args, result)
        if ledger.allocated is not None:
            for tensor in tensors_in(result if isinstance(result, (tuple, list)) else (result,)):
                if tensor.layout is torch.strided:  # a sparse tensor has no storage
                    ledger.allocated(tensor)
        return result

    def _note_detached(self, tensor: Tensor) -> None:
        """Record a tensor that requires grad and is detached. An observer counts bytes, which the record would keep alive."""
        ledger = self.ledger
        if tensor.requires_grad and torch.is_grad_enabled() and ledger.allocated is None:
            ledger.detached.append((ledger.where(), tensor))

    def _note_uses(self, func: Any, tensors: Sequence[Tensor]) -> None:
        """Record the first use of each watched parameter, each read of a packed weight, and a product with one."""
        ledger = self.ledger
        if ledger.packed_reads and func in _PRODUCTS:
            ledger.mixes_packed = ledger.mixes_packed or len({tensor.is_floating_point() for tensor in tensors}) > 1
        unpacks = getattr(func, "namespace", "") == "bitsandbytes"  # its kernels are made to read packed weights
        for tensor in tensors:
            key = id(tensor)
            if not unpacks and (path := ledger.packed_path(tensor)):
                ledger.packed_reads.setdefault((path, ledger.where()), ledger.last_operator)
            elif key in ledger.watched:
                place = ledger.used if torch.is_grad_enabled() else ledger.used_without_grad
                if key not in place:
                    place[key] = ledger.where()

    def _matched(self, func: Any, args: Any, dtype: torch.dtype | None) -> Any:
        """Record a refusal if the real kernel refuses the dtypes, and return arguments that agree with the first one."""
        dtypes = kernel_dtypes.refused(func, args, self.ledger.device, dtype)
        if not dtypes:
            return args
        ledger = self.ledger
        if not (ledger.in_backward and ledger.refusals):  # a refusal in the forward pass causes others in the backward pass
            place = ledger.where()
            name = func.overloadpacket.__name__
            ledger.refusals.setdefault((place, name), Refusal(place, name, dtypes, ledger.in_backward))
        wanted = dtypes[0]
        return tuple(
            value.to(wanted)
            if isinstance(value, Tensor) and value.is_floating_point() and value.dtype is not wanted and position > 0
            else value
            for position, value in enumerate(args)
        )

    def _known(self, func: Any, args: Any, kwargs: dict[str, Any], tensors: Sequence[Tensor]) -> Any:
        """Compute an operator on real arguments. Results with floating contents, and large ones, go to the meta device."""
        name = func.overloadpacket.__name__
        if func is aten.eq.Scalar and type(args[1]) is int:
            self.ledger.compared.add(args[1])
        if name in _FILLING and _result_dtype(name, args, kwargs).is_floating_point:
            return func(*args, **{**kwargs, "device": META})
        if func not in ANSWERS and _may_be_large(name, args, tensors):
            shape = func(
                *on_meta(args),
                **on_meta({**kwargs, **({"device": META} if not tensors or "device" in kwargs else {})}),
            )
            if isinstance(shape, Tensor) and shape.numel() > MAX_REAL and not _is_in_place(func):
                self.ledger.guess("large tensor")
                return shape
        return func(*args, **kwargs)

    def _unknown(self, func: Any, args: Any, kwargs: dict[str, Any], tensors: Sequence[Tensor]) -> Any:
        """Answer the operator, or run its meta kernel on empty arguments. A write into a real tensor is skipped."""
        special = ANSWERS.get(func)
        if special is not None:
            return special(self.ledger, func, args, kwargs)
        if func is aten.convolution.default:
            _check_channels(*args[:2], transposed=args[6], groups=args[8])
        if all(tensor.is_meta for tensor in tensors):
            sparse = any(tensor.layout is not torch.strided for tensor in tensors)
            return self._on_sparse(func, args, kwargs) if sparse else self.shapes.run(func, args, kwargs)
        if _is_in_place(func) and not args[0].is_meta:
            self.ledger.guess("write into known values")
            return args[0]
        return self.shapes.run(func, on_meta(args), on_meta(kwargs))

    def _on_sparse(self, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        """Run an operator on a sparse tensor, or on a dense one of its shape and dtype: meta lacks most sparse kernels."""
        try:
            return func(*args, **kwargs)
        except NotImplementedError:
            if func is aten.sparse_mask.default:  # the gradient of the values that a sparse tensor was made of
                mask = args[1]  # the result has values of its own: those of the mask may be known zeros
                values = torch.empty(mask._values().shape, dtype=args[0].dtype, device=META)  # noqa: SLF001  # also of one that is not coalesced
                return torch.sparse_coo_tensor(mask._indices(), values, mask.shape, is_coalesced=mask.is_coalesced())  # noqa: SLF001  # see above
            return self.shapes.run(func, _dense(args), _dense(kwargs))


def _dense(value: Any) -> Any:
    """Return the same arguments with an empty dense tensor in place of each sparse one."""
    if isinstance(value, Tensor) and value.layout is not torch.strided:
        return torch.empty(value.shape, dtype=value.dtype, device=META)
    if type(value) in (list, tuple):
        return type(value)(map(_dense, value))
    return {key: _dense(item) for key, item in value.items()} if isinstance(value, dict) else value


def _check_channels(incoming: Tensor, weight: Tensor, *, transposed: bool, groups: int) -> None:
    """Raise the error of the real kernels for a wrong number of channels. Those of meta name no numbers."""
    wanted, had = weight.shape[1] * groups, incoming.shape[1]
    if not transposed and had != wanted:
        raise RuntimeError(
            f"Given groups={groups}, weight of size {list(weight.shape)}, expected input{list(incoming.shape)} to have "
            f"{wanted} channels, but got {had} channels instead"
        )


def tensors_in(values: Sequence[Any]) -> list[Tensor]:
    """Return the tensors among the arguments of an operator."""
    found: list[Tensor] = []
    for value in values:
        if isinstance(value, Tensor):
            found.append(value)
        elif type(value) in (list, tuple):
            found += [item for item in value if isinstance(item, Tensor)]
    return found


#: Operators that create a tensor for later writes. ``ones`` is absent: masks are made of ones, and are computed.
_FILLING = frozenset(
    name
    for kind in ("empty", "zeros", "full", "rand", "randn")
    for name in (kind, f"new_{kind}", f"{kind}_like", f"{kind}_strided", f"new_{kind}_strided", f"{kind}_permuted")
) | {"bernoulli", "normal", "eye"}


def _result_dtype(name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> torch.dtype:
    asked = kwargs.get("dtype")
    if asked is not None:
        return asked  # type: ignore[no-any-return]  # a torch.dtype
    if args and isinstance(args[0], Tensor):
        return args[0].dtype
    if name == "full" and isinstance(args[1], (bool, int)):
        return torch.bool if isinstance(args[1], bool) else torch.int64
    return torch.get_default_dtype()


def _may_be_large(name: str, args: Sequence[Any], tensors: Sequence[Tensor]) -> bool:
    if tensors:
        return sum(tensor.numel() for tensor in tensors) >= 1024
    sizes = args[0] if args and type(args[0]) in (list, tuple) else args[:1]
    product = 1
    for size in sizes:
        product *= size if isinstance(size, int) else 1
    return name != "arange" and product > MAX_REAL


@functools.lru_cache(maxsize=4096)
def _is_in_place(func: Any) -> bool:
    name = str(func.overloadpacket.__name__)
    return name.endswith("_") and not name.endswith("__")
