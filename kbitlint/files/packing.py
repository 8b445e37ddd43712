"""How the tensors of a checkpoint are packed, by the names and dtypes in its headers."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kbitlint.upstream.quantization import METHODS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from kbitlint.files.safetensors import Tensor

#: what bitsandbytes stores beside a 4-bit weight (bitsandbytes/functional.py, QuantState.as_dict)
_STATE = re.compile(
    r"(?P<weight>.+\.weight)\.(?P<part>absmax|quant_map|nested_absmax|nested_quant_map|quant_state\.bitsandbytes__(nf4|fp4))"
)
_NEEDED = ("absmax", "quant_map", "quant_state")
#: tensors that tell of a method by their name alone
_MARKS = {method.name: re.compile(method.tensors) for method in METHODS if method.tensors}


@dataclass(frozen=True, slots=True)
class Packed:
    """A packed weight with what is stored beside it."""

    module: str
    bits: int
    missing: tuple[str, ...] = ()
    """Parts of its quantization state that are not stored."""


@dataclass(frozen=True, slots=True)
class Packing:
    """Everything that is packed in a checkpoint."""

    packed: tuple[Packed, ...] = ()
    orphaned: tuple[str, ...] = ()
    """Modules whose quantization state is stored without the weight."""
    floating: tuple[str, ...] = ()
    """Modules with a matrix in floating point that no method has packed."""
    method: str | None = None
    """``bitsandbytes`` or another method, where the names tell; None where nothing is packed."""

    @property
    def modules(self) -> frozenset[str]:
        """The modules whose weights are packed."""
        return frozenset(item.module for item in self.packed)


def packing_of(tensors: Mapping[str, Tensor]) -> Packing:
    """What is packed among these tensors."""
    states: dict[str, set[str]] = {}
    for name in tensors:
        match = _STATE.fullmatch(name) if ".weight." in name else None
        if match is not None:
            states.setdefault(match["weight"], set()).add(match["part"].partition(".")[0])
    packed = [_four_bit(weight, parts) for weight, parts in states.items() if weight in tensors]
    orphaned = [weight.removesuffix(".weight") for weight in states if weight not in tensors]
    floating: list[str] = []
    for name, tensor in tensors.items():
        module = name.rpartition(".")[0]
        if name.endswith(".weight") and name not in states and len(tensor.shape) == 2:  # a matrix
            if tensor.dtype == "I8":
                packed.append(Packed(module, 8, () if f"{module}.SCB" in tensors else ("SCB",)))
            elif tensor.dtype == "U8" and tensor.shape[1] == 1:
                packed.append(Packed(module, 4, _NEEDED))
            elif tensor.dtype in ("F16", "BF16", "F32"):
                floating.append(module)
        elif name.endswith(".SCB") and f"{module}.weight" not in tensors:
            orphaned.append(module)
    return Packing(tuple(packed), tuple(orphaned), tuple(floating), "bitsandbytes" if packed else _method(tensors))


def _four_bit(weight: str, parts: set[str]) -> Packed:
    nested = bool(parts & {"nested_absmax", "nested_quant_map"})
    needed = (*_NEEDED, *(("nested_absmax", "nested_quant_map") if nested else ()))
    return Packed(weight.removesuffix(".weight"), 4, tuple(part for part in needed if part not in parts))


def _method(names: Iterable[str]) -> str | None:
    for name in names:
        for method, mark in _MARKS.items():
            if mark.search(name):
                return method
    return None
