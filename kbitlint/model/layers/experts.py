"""Fused experts: parameters that stack the matrices of several experts, and banks that are packed in place."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn
from torch.nn.utils import parametrize

from kbitlint.model.layers import adapters

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


#: Names of stacked experts, in their path or in the class that holds them.
_EXPERTS = re.compile(r"expert|moe", re.IGNORECASE)
#: Names of small parameters beside the experts: routers, and tensors added to the output of experts.
_NO_EXPERTS = re.compile(r"bias|router|gate\.|gate$|scale|embed", re.IGNORECASE)
#: Dimensions of stacked matrices. DBRX stacks them in two.
_BANK, _FLAT_BANK = 3, 2
#: Modules that multiply by the whole parameter.
_NO_BANKS: tuple[type[nn.Module], ...] = (nn.modules.conv._ConvNd, nn.Embedding, nn.Linear)  # noqa: SLF001  # the only common base


def packed_kind(parameters: nn.Module) -> str | None:
    """Return nf4 or fp4 if a ParametrizationList unpacks 4-bit values, and None otherwise. bitsandbytes is not imported."""
    for parametrization in parameters.children() if isinstance(parameters, parametrize.ParametrizationList) else ():
        state = getattr(parametrization, "quant_state", None)
        if type(parametrization).__name__ == "Bnb4bitParametrization" and state is not None:
            return str(state.quant_type)
    return None


def path_of(path: str) -> str:
    """Return the path of a parameter from the path of its ParametrizationList."""
    owner, _, name = path.rpartition(".parametrizations.")
    return f"{owner}.{name}" if owner else name.removeprefix("parametrizations.")


def packed_shape(parameters: nn.Module) -> tuple[int, ...]:
    """Return the shape of a packed bank after unpacking. It is empty if the bank has no quantization state."""
    states = (getattr(parametrization, "quant_state", None) for parametrization in parameters.children())
    return next((tuple(state.shape) for state in states if state is not None), ())


def state_bytes(parameters: nn.Module) -> int:
    """Return the bytes of the block statistics that a packed bank holds outside its parameters."""
    states = [getattr(parametrization, "quant_state", None) for parametrization in parameters.children()]
    return sum(_tensor_bytes(state) for state in states if state is not None)


def _tensor_bytes(state: Any) -> int:
    nested = getattr(state, "state2", None)
    tensors = [value for value in vars(state).values() if isinstance(value, Tensor)]
    return sum(tensor.nbytes for tensor in tensors) + (0 if nested is None else _tensor_bytes(nested))


def new_parametrizations(before: Iterable[tuple[str, nn.Module]], after: Iterable[tuple[str, nn.Module]]) -> tuple[str, ...]:
    """Return the paths of parameters that gained parametrizations.

    Args:
        before: (path, module) of every module, before the step.
        after: (path, module) of every module, after the step.
    """
    known = dict(_parametrized(before))
    return tuple(path for path, count in _parametrized(after) if count > known.get(path, 0))


def _parametrized(modules: Iterable[tuple[str, nn.Module]]) -> Iterator[tuple[str, int]]:
    for path, module in modules:
        if isinstance(module, parametrize.ParametrizationList):
            yield adapters.below_wrappers(path_of(path)), len(module)


def is_bank(module: nn.Module, path: str, parameter: Tensor) -> bool:
    """Return whether a parameter stacks the matrices of several experts.

    Code uses one matrix at a time, or all of them in one product.
    """
    if isinstance(module, _NO_BANKS) or not _FLAT_BANK <= parameter.ndim <= _BANK or min(parameter.shape) <= 1:
        return False
    if not parameter.is_floating_point() or _NO_EXPERTS.search(".".join(path.split(".")[-2:])):
        return False
    if parameter.ndim == _BANK:
        return _EXPERTS.search(f"{path} {type(module).__name__}") is not None
    return "Expert" in type(module).__name__ and not type(module).__module__.startswith(("torch.", "peft.", "bitsandbytes."))
