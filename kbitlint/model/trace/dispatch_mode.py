"""Runs torch code on tensors without contents: shapes, dtypes and autograd edges are all there is.

Floating tensors live on the meta device. Integers and booleans that can be computed are computed for real (token ids,
positions, masks), so code that branches on them takes the branch that training takes. What cannot be known (where a
router sends a token) is answered plausibly and counted as a guess: a failure without guesses is what training does.

To the code that runs, every tensor seems to be on the CPU.
"""

from __future__ import annotations

import contextlib
import functools
import sys
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from kbitlint.model import kernels
from kbitlint.model.guesses import ANSWERS, expect, on_meta, one_hot
from kbitlint.model.ledger import Ledger, Refusal
from kbitlint.model.shapes import KnownShapes
from kbitlint.model.standins import attend

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

aten = torch.ops.aten
_CPU, _META = torch.device("cpu"), torch.device("meta")

#: a real tensor larger than this is not computed: masks of long sequences would fill the memory
MAX_REAL = 2**22


# ------------------------------------------------------------------------------------ below autograd: operators


class WeightlessKernels(TorchDispatchMode):
    """Stands in for the kernels: checks dtypes, keeps known integers real, answers reads of unknown values."""

    def __init__(self, ledger: Ledger) -> None:
        super().__init__()
        self.ledger = ledger
        self.shapes = KnownShapes()

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """No: torch would wrap every operator of the step to keep a compiler out that is not at work here."""
        return False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run one operator on what is known of its arguments."""
        with torch._C.DisableTorchFunction():  # noqa: SLF001  # nothing in here is code that tensors should seem real to
            return self._answer(func, args, kwargs or {})

    def _answer(self, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        ledger = self.ledger
        tensors = _tensors((*args, *kwargs.values()) if kwargs else args)
        unknown = any(tensor.is_meta for tensor in tensors)
        ledger.last = func
        if ledger.guard is not None:
            ledger.guard.see(tensors)
        if func is aten.detach.default:
            if tensors[0].requires_grad and torch.is_grad_enabled():
                ledger.detached.append((ledger.where(), tensors[0]))
        else:
            self._note_uses(tensors)
        if kernels.checks(func):
            args = self._matched(func, args)
        if "device" in kwargs:
            kwargs = {**kwargs, "device": _META if unknown else _CPU}
        if not unknown:
            result = self._known(func, args, kwargs, tensors)
        else:
            special = ANSWERS.get(func)
            result = special(ledger, func, args, kwargs) if special else self._unknown(func, args, kwargs, tensors)
        if unknown and isinstance(result, Tensor):
            expect(func, args, result)
        if ledger.allocated is not None:
            for tensor in _tensors(result if isinstance(result, (tuple, list)) else (result,)):
                ledger.allocated(tensor)
        return result

    def _note_uses(self, tensors: Sequence[Tensor]) -> None:
        ledger = self.ledger
        for tensor in tensors:
            key = id(tensor)
            if key in ledger.packed:
                ledger.packed_reads.setdefault((ledger.packed[key], ledger.where()), ledger.last_operator)
            elif key in ledger.watched:
                place = ledger.used if torch.is_grad_enabled() else ledger.used_without_grad
                if key not in place:
                    place[key] = ledger.where()

    def _matched(self, func: Any, args: Any) -> Any:
        """Note what the real kernel refuses, and go on as if the dtypes were the first one's."""
        dtypes = kernels.refused(func, args, self.ledger.device)
        if not dtypes:
            return args
        ledger = self.ledger
        if not (ledger.in_backward and ledger.refusals):  # what a refusal in the forward pass leads to
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
        """Compute for real, unless it makes floating contents or more than fits."""
        name = func.overloadpacket.__name__
        if name in _FILLING and _result_dtype(name, args, kwargs).is_floating_point:
            return func(*args, **{**kwargs, "device": _META})
        if _may_be_large(name, args, tensors):
            shape = func(
                *on_meta(args),
                **on_meta({**kwargs, **({"device": _META} if not tensors or "device" in kwargs else {})}),
            )
            if isinstance(shape, Tensor) and shape.numel() > MAX_REAL and not _is_in_place(func):
                self.ledger.guess("large tensor")
                return shape
        return func(*args, **kwargs)

    def _unknown(self, func: Any, args: Any, kwargs: dict[str, Any], tensors: Sequence[Tensor]) -> Any:
        """Run the meta kernel; known arguments lose their contents on the way in."""
        if all(tensor.is_meta for tensor in tensors):
            return self.shapes.run(func, args, kwargs)
        if _is_in_place(func) and not args[0].is_meta:
            self.ledger.guess("write into known values")
            return args[0]
        return self.shapes.run(func, on_meta(args), on_meta(kwargs))


def _tensors(values: Sequence[Any]) -> list[Tensor]:
    found: list[Tensor] = []
    for value in values:
        if isinstance(value, Tensor):
            found.append(value)
        elif type(value) in (list, tuple):
            found += [item for item in value if isinstance(item, Tensor)]
    return found


#: these make a tensor that code fills later (ones are masks, and are computed)
_FILLING = frozenset(
    name
    for kind in ("empty", "zeros", "full", "rand", "randn")
    for name in (kind, f"new_{kind}", f"{kind}_like", f"{kind}_strided", f"new_{kind}_strided", f"{kind}_permuted")
) | {"bernoulli", "normal"}


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


# ------------------------------------------------------------------------------------- above autograd: functions


class SeemsReal(TorchFunctionMode):
    """Lets code believe that its tensors are on the CPU, and applies autocast, which knows no meta device."""

    def __init__(self, ledger: Ledger) -> None:
        super().__init__()
        self.ledger = ledger

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Answer what would betray the meta device; pass everything else on."""
        kwargs = kwargs or {}
        if isinstance(func, torch._ops.OpOverload):  # noqa: SLF001  # an operator that WeightlessKernels calls, not a function that code calls
            return func(*args, **kwargs)
        answer = _BETRAYALS.get(func)
        if answer is not None:
            return answer(self.ledger, func, args, kwargs)
        if kwargs and kwargs.get("device") not in (None, "meta", _META):
            kwargs = {**kwargs, "device": _CPU}
        dtype = autocast_dtype()
        if dtype is not None:
            args, kwargs = kernels.autocast(getattr(func, "__name__", ""), args, kwargs, self.ledger.device, dtype)
        dtypes = kernels.refused_function(getattr(func, "__name__", ""), args, self.ledger.device)
        if dtypes:
            raise RuntimeError(f"Unsupported dtype {dtypes[0]}")  # as the CPU does, whatever meta takes
        if func is torch.nn.functional.scaled_dot_product_attention:
            return attend(*args, **kwargs, device=self.ledger.device)
        return func(*args, **kwargs)


def autocast_dtype() -> torch.dtype | None:
    """The dtype of the enclosing autocast region, on whatever device it was opened; None outside."""
    for device in ("cpu", "cuda"):
        if torch.is_autocast_enabled(device):
            return torch.get_autocast_dtype(device)
    return None


def _without_device(_: Ledger, func: Any, args: Any, kwargs: Any) -> Any:
    """``tensor.to(...)`` moves nothing here: only the dtype counts."""
    rest: list[Any] = []
    for value in args[1:]:
        if isinstance(value, Tensor):
            rest.append(value.dtype)
        elif not isinstance(value, (torch.device, str, int)) or isinstance(value, bool):
            rest.append(value)
    named = {key: value for key, value in kwargs.items() if key not in ("device", "non_blocking")}
    if "other" in named:
        named["dtype"] = named.pop("other").dtype
    dtypes = [value for value in rest if isinstance(value, torch.dtype)]
    copies = [value for value in rest if isinstance(value, bool)]  # (dtype, non_blocking, copy)
    if dtypes:
        named["dtype"] = dtypes[0]
    if len(copies) > 1 and copies[1]:
        named["copy"] = True
    if not named:
        return args[0]
    named.setdefault("dtype", args[0].dtype)
    return func(args[0], **named)


def _device(_: Ledger, func: Any, args: Any, __: Any) -> Any:
    """The CPU, but for torch's checkpoint: it compares devices inside and outside of functions that hide them."""
    asks = sys._getframe(2).f_globals.get("__name__")  # noqa: SLF001  # the frame that reads the attribute
    return func(*args) if asks == "torch.utils.checkpoint" else _CPU


def _itself(_: Ledger, __: Any, args: Any, ___: Any) -> Any:
    return args[0]


def _tolist(ledger: Ledger, func: Any, args: Any, kwargs: Any) -> Any:
    tensor = args[0]
    if not tensor.is_meta:
        return func(*args, **kwargs)
    ledger.guess("tolist")
    value: Any = 1.0 if tensor.is_floating_point() else tensor.dtype is torch.bool or 1

    def nested(shape: Sequence[int]) -> Any:
        return [nested(shape[1:]) for _ in range(shape[0])] if shape else value

    return nested(tuple(tensor.shape))


def _split(ledger: Ledger, func: Any, args: Any, kwargs: Any) -> Any:
    """A split by sizes that were guessed: the last part takes what is left."""
    tensor = args[0]
    sizes = (
        args[1] if len(args) > 1 else kwargs.get("split_size_or_sections", kwargs.get("split_sizes", kwargs.get("split_size")))
    )
    dim = args[2] if len(args) > 2 else kwargs.get("dim", 0)
    if tensor.is_meta and isinstance(sizes, (list, tuple)) and ledger.guesses["tolist"]:
        rest = tensor.shape[dim] - sum(sizes)
        if rest and set(sizes) == {1}:
            return func(tensor, [*sizes[:-1], 1 + rest], dim)
    return func(*args, **kwargs)


def _same_values(ledger: Ledger, func: Any, args: Any, kwargs: Any) -> Any:
    if any(tensor.is_meta for tensor in _tensors(args)):
        ledger.guess("equal")
        return True
    return func(*args, **kwargs)


_BETRAYALS: dict[Any, Callable[[Ledger, Any, Any, Any], Any]] = {
    Tensor.device.__get__: _device,  # type: ignore[attr-defined]  # a getset descriptor
    Tensor.to: _without_device,
    Tensor.cpu: _itself,
    Tensor.cuda: _itself,
    Tensor.tolist: _tolist,
    Tensor.split: _split,
    Tensor.split_with_sizes: _split,
    torch.split: _split,
    torch.allclose: _same_values,
    torch.equal: _same_values,
    torch.nn.functional.one_hot: one_hot,
}


@contextlib.contextmanager
def weightless(ledger: Ledger) -> Iterator[None]:
    """Run what follows without weights, and write down in the ledger what happened."""
    with SeemsReal(ledger), WeightlessKernels(ledger):
        yield
