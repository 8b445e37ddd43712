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
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from kbitlint.model import kernels
from kbitlint.model.standins import attend

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

aten = torch.ops.aten
_CPU = torch.device("cpu")

#: a real tensor larger than this is not computed: masks of long sequences would fill the memory
MAX_REAL = 2**22


@dataclass(frozen=True, slots=True)
class Refusal:
    """A kernel that would refuse the dtypes it was given."""

    where: str
    operator: str
    dtypes: tuple[torch.dtype, ...]
    in_backward: bool


@dataclass(slots=True)
class Ledger:
    """What a run without weights has to remember."""

    device: str
    """Whose kernels are stood in for: ``cpu`` or ``cuda``."""
    where: Callable[[], str] = lambda: ""
    """The path of the module that runs."""
    in_backward: bool = False
    refusals: dict[tuple[str, str], Refusal] = field(default_factory=dict)
    guesses: Counter[str] = field(default_factory=Counter)
    watched: dict[int, Tensor] = field(default_factory=dict)
    """The parameters of interest, by id."""
    used: dict[int, str] = field(default_factory=dict)
    """Where each watched parameter was first computed with while gradients were recorded."""
    used_without_grad: dict[int, str] = field(default_factory=dict)
    packed: dict[int, str] = field(default_factory=dict)
    """Paths of the packed weights, by id: no operator but a stand-in should meet one."""
    packed_reads: dict[tuple[str, str], str] = field(default_factory=dict)
    """(packed weight, module that reads it) -> operator."""
    detached: list[tuple[str, Tensor]] = field(default_factory=list)
    """(module, tensor) of every detach of a tensor that requires grad."""
    allocated: Callable[[Tensor], None] | None = None
    """Told of every tensor that an operator gives."""
    last_operator: str = ""

    def guess(self, what: str) -> None:
        """Count an answer that the real values might contradict."""
        self.guesses[what] += 1


# ------------------------------------------------------------------------------------ below autograd: operators


class WeightlessKernels(TorchDispatchMode):
    """Stands in for the kernels: checks dtypes, keeps known integers real, answers reads of unknown values."""

    def __init__(self, ledger: Ledger) -> None:
        super().__init__()
        self.ledger = ledger

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run one operator on what is known of its arguments."""
        kwargs = kwargs or {}
        ledger = self.ledger
        tensors = _tensors((*args, *kwargs.values()) if kwargs else args)
        unknown = any(tensor.is_meta for tensor in tensors)
        ledger.last_operator = str(func)
        if func is aten.detach.default:
            if tensors[0].requires_grad and torch.is_grad_enabled():
                ledger.detached.append((ledger.where(), tensors[0]))
        else:
            self._note_uses(tensors)
        if kernels.checks(func):
            args = self._matched(func, args)
        if "device" in kwargs:
            kwargs = {**kwargs, "device": torch.device("meta") if unknown else _CPU}
        if not unknown:
            result = self._known(func, args, kwargs, tensors)
        else:
            special = _SPECIAL.get(func)
            result = special(ledger, func, args, kwargs) if special else self._unknown(func, args, kwargs)
        if unknown and isinstance(result, Tensor):
            _expect(func, args, result)
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
            return func(*args, **{**kwargs, "device": torch.device("meta")})
        if _may_be_large(name, args, tensors):
            shape = func(
                *_on_meta(args),
                **_on_meta({**kwargs, **({"device": torch.device("meta")} if not tensors or "device" in kwargs else {})}),
            )
            if isinstance(shape, Tensor) and shape.numel() > MAX_REAL and not _is_in_place(func):
                self.ledger.guess("large tensor")
                return shape
        return func(*args, **kwargs)

    def _unknown(self, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        """Run the meta kernel; known arguments lose their contents on the way in."""
        if _is_in_place(func) and not args[0].is_meta:
            self.ledger.guess("write into known values")
            return args[0]
        return func(*_on_meta(args), **_on_meta(kwargs))


def _tensors(values: Sequence[Any]) -> list[Tensor]:
    found: list[Tensor] = []
    for value in values:
        if isinstance(value, Tensor):
            found.append(value)
        elif type(value) in (list, tuple):
            found += [item for item in value if isinstance(item, Tensor)]
    return found


def _on_meta(value: Any) -> Any:
    """The same arguments with every real tensor emptied."""
    if isinstance(value, Tensor):
        return value if value.is_meta else torch.empty_strided(value.shape, value.stride(), dtype=value.dtype, device="meta")
    if type(value) in (list, tuple):
        return type(value)(map(_on_meta, value))
    if isinstance(value, dict):
        return {key: _on_meta(item) for key, item in value.items()}
    return value


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


# --------------------------------------------------------------------------- reads of values that are not there


#: a 0-d result of one of these is taken to be False where code branches on it, anything else to be True:
#: ``any()`` of a mask, ``expert == num_experts``, LayerDrop's ``torch.rand([]) < p``
_UNLIKELY = frozenset(
    [aten.any.default, aten.any.dim]
    + [getattr(getattr(aten, name), kind) for name in ("eq", "lt", "gt", "le", "ge") for kind in ("Scalar", "Tensor")]
)
_REDUCTIONS = frozenset([aten.sum.default, aten.sum.dim_IntList, aten.any.default, aten.any.dim, aten.count_nonzero.default])
#: where a tensor without contents keeps what it is expected to hold
_EXPECTED = "_kbitlint_expected"


def _expect(func: Any, args: Any, result: Tensor) -> None:
    """Note what code may expect of a result: nothing is NaN, counts of it are 0, and rare things do not happen."""
    first = args[0] if args and isinstance(args[0], Tensor) else None
    expected = getattr(first, _EXPECTED, None)
    is_nan = func in (aten.isnan.default, aten.isinf.default) or (func is aten.ne.Tensor and first is args[1])
    if func is aten.eq.Scalar and expected is not None:
        setattr(result, _EXPECTED, int(expected == args[1]))
    elif is_nan or (func in _REDUCTIONS and expected == 0) or (func in _UNLIKELY and result.ndim == 0):
        setattr(result, _EXPECTED, 0)


def _value_of(ledger: Ledger, _: Any, args: Any, __: Any) -> Any:
    """What a scalar without contents is taken to be."""
    tensor = args[0]
    ledger.guess("value")
    value = getattr(tensor, _EXPECTED, 1)
    return bool(value) if tensor.dtype is torch.bool else float(value) if tensor.is_floating_point() else value


def _nonzero(ledger: Ledger, _: Any, args: Any, __: Any) -> Any:
    ledger.guess("nonzero")
    tensor = args[0]
    return torch.empty((tensor.numel(), tensor.ndim), dtype=torch.long, device="meta")


def _masked_select(ledger: Ledger, _: Any, args: Any, __: Any) -> Any:
    tensor, mask = args[0], args[1]
    if mask.is_meta:
        ledger.guess("masked_select")
        count = max(tensor.numel(), mask.numel())
    else:
        count = int(mask.expand(torch.broadcast_shapes(tensor.shape, mask.shape)).sum())
    return tensor.new_empty((count,))


def _index(ledger: Ledger, func: Any, args: Any, kwargs: Any) -> Any:
    """Indexing: a known mask selects what it selects, an unknown one is taken to be true everywhere."""
    tensor, indices = args[0], args[1]
    made: list[Tensor | None] = []
    for index in indices:
        if index is None or index.dtype not in (torch.bool, torch.uint8):
            made.append(index)
        elif index.is_meta:
            ledger.guess("index by mask")
            made += [torch.empty((index.numel(),), dtype=torch.long, device="meta") for _ in range(index.ndim)]
        else:
            made += list(index.nonzero(as_tuple=True))
    return func(_on_meta(tensor), _on_meta(made), **kwargs)


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
    """The shape of a grouped product; the groups are rows of the 2-d operands, matrices of the 3-d ones."""
    left, right = args[0], args[1]
    if left.ndim == 2 and right.ndim == 2:
        return left.new_empty((args[2].shape[0], left.shape[0], right.shape[1]))
    rows = (left.shape[1],) if left.ndim == 3 and right.ndim == 2 else tuple(left.shape[:-1])
    return left.new_empty((*rows, right.shape[-1]))


def _normalise(ledger: Ledger, func: Any, args: Any, kwargs: Any) -> Any:
    """Layer and group norms keep a mean and a deviation: float32 on CUDA, in the parameters' dtype on the CPU."""
    out, mean, deviation = func(*_on_meta(args), **_on_meta(kwargs))
    weight = next((value for value in args[1:] if isinstance(value, Tensor)), args[0])
    kept = weight.dtype if ledger.device == "cpu" else mean.dtype
    return out, mean.to(kept), deviation.to(kept)


def _equal(ledger: Ledger, _: Any, __: Any, ___: Any) -> Any:
    ledger.guess("equal")
    return True


_SPECIAL: dict[Any, Callable[[Ledger, Any, Any, Any], Any]] = {
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
    aten._grouped_mm.default: _grouped_mm,  # noqa: SLF001  # see above
    aten.equal.default: _equal,
    aten.native_layer_norm.default: _normalise,
    aten.native_group_norm.default: _normalise,
}


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
        answer = _ANSWERS.get(func)
        if answer is not None:
            return answer(self.ledger, func, args, kwargs)
        if kwargs.get("device") not in (None, "meta", torch.device("meta")):
            kwargs = {**kwargs, "device": _CPU}
        dtype = autocast_dtype()
        if dtype is not None:
            args, kwargs = kernels.autocast(getattr(func, "__name__", ""), args, kwargs, self.ledger.device, dtype)
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


_ANSWERS: dict[Any, Callable[[Ledger, Any, Any, Any], Any]] = {
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
}


@contextlib.contextmanager
def weightless(ledger: Ledger) -> Iterator[None]:
    """Run what follows without weights, and write down in the ledger what happened."""
    with SeemsReal(ledger), WeightlessKernels(ledger):
        yield
