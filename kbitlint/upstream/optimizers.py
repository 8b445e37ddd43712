"""The state that each optimizer keeps for a trained tensor, by the name that ``TrainingArguments.optim`` gives it.

Sources: torch.optim, bitsandbytes 0.50 (optim/optimizer.py, functional.get_paged), transformers 5.23 (optimization.py,
trainer_optimizer.py), and the optimizers of galore-torch and apollo-torch.
"""

from __future__ import annotations

import math

from kbitlint.errors import KbitlintError, did_you_mean
from kbitlint.lazy_dataclass import dataclass

#: bitsandbytes keeps the state of smaller tensors in 32 bits (``min_8bit_size``)
MIN_8BIT = 4096
#: elements that share a float32 maximum in 8-bit state
BLOCK = 256
#: bitsandbytes pages the state of tensors with at least so many elements (``get_state_buffer``)
MIN_PAGED = 100_000
#: the rank of GaLore and APOLLO, where ``optim_args`` sets none (transformers' trainer_optimizer.py)
LOW_RANK = 128


@dataclass(frozen=True, slots=True)
class Optimizer:
    """The state of one optimizer."""

    names: tuple[str, ...]
    tensors: float
    """How many tensors of the parameter's shape it keeps."""
    bits: int | None = None
    """Bits of an element of the state; None for the dtype of the parameter."""
    paged: bool = False
    """Whether the state lives in memory that the host backs, and the device reads by pages."""
    layout: str = "full"
    """``full``, ``factored`` (a row and a column of each matrix) or ``projected`` (into ``LOW_RANK`` dimensions)."""
    scratch: bool = False
    """Whether its step allocates one tensor for each parameter at once, as torch's foreach kernels do."""

    def state(self, shape: tuple[int, ...], itemsize: int) -> tuple[int, int]:
        """Return the bytes that the state of one tensor takes on (the device, the host)."""
        elements = math.prod(shape)
        if self.layout == "factored":
            return (4 * (elements // shape[-1] + elements // shape[-2]) if len(shape) > 1 else 4 * elements), 0
        if self.layout == "projected" and len(shape) == 2:
            return _projected(shape, self.tensors, self.bits, itemsize), 0
        count = round(self.tensors * elements)
        if self.bits == 8 and elements >= MIN_8BIT:
            maxima = round(self.tensors * -(-elements // BLOCK)) * 4
            return (maxima, count) if self.paged and elements >= MIN_PAGED else (count + maxima, 0)
        held = count * (itemsize if self.bits is None else 4)
        return (0, held) if self.paged and elements >= MIN_PAGED else (held, 0)


def _projected(shape: tuple[int, ...], tensors: float, bits: int | None, itemsize: int) -> int:
    """Return the bytes of the projection of a matrix, and of the state of the projected gradient."""
    least, most = min(shape), max(shape)
    rank = min(LOW_RANK, least)
    element = 1 + 4 / BLOCK if bits == 8 else itemsize
    return rank * least * itemsize + round(tensors * rank * most * element)


OPTIMIZERS = (
    Optimizer(("adamw", "adamw_torch", "adamw_torch_fused", "adamw_apex_fused"), 2, scratch=True),
    Optimizer(("adamw_8bit", "adamw_bnb_8bit", "adamw8bit"), 2, bits=8),
    Optimizer(("paged_adamw_8bit",), 2, bits=8, paged=True),
    Optimizer(("paged_adamw_32bit", "paged_adamw"), 2, bits=32, paged=True),
    Optimizer(("ademamix",), 3, bits=32),
    Optimizer(("ademamix_8bit",), 3, bits=8),
    Optimizer(("paged_ademamix_8bit",), 3, bits=8, paged=True),
    Optimizer(("paged_ademamix_32bit",), 3, bits=32, paged=True),
    Optimizer(("lion_32bit", "lion"), 1, bits=32),
    Optimizer(("lion_8bit",), 1, bits=8),
    Optimizer(("paged_lion_32bit",), 1, bits=32, paged=True),
    Optimizer(("paged_lion_8bit",), 1, bits=8, paged=True),
    Optimizer(("rmsprop",), 1, scratch=True),
    Optimizer(("rmsprop_bnb", "rmsprop_bnb_32bit"), 1, bits=32),
    Optimizer(("rmsprop_bnb_8bit",), 1, bits=8),
    Optimizer(("adagrad",), 1, scratch=True),
    Optimizer(("muon",), 1),
    Optimizer(("adafactor",), 0, layout="factored"),
    Optimizer(("galore_adamw", "galore_adamw_layerwise"), 2, layout="projected"),
    Optimizer(("galore_adamw_8bit", "galore_adamw_8bit_layerwise"), 2, bits=8, layout="projected"),
    Optimizer(("apollo_adamw", "apollo_adamw_layerwise"), 2, layout="projected"),
    Optimizer(("schedule_free_adamw", "schedule_free_radam", "stable_adamw"), 2),
    Optimizer(("sgd", "lomo"), 0),
)
NAMES = tuple(name for row in OPTIMIZERS for name in row.names)


def find(name: str) -> Optimizer:
    """Return the optimizer of a name.

    Raises:
        KbitlintError: Its state is not known.
    """
    for row in OPTIMIZERS:
        if name.lower() in row.names:
            return row
    raise KbitlintError(f"optimizer {name!r} is none of {', '.join(NAMES)}{did_you_mean(name, NAMES)}")


def known(name: str | None) -> str | None:
    """Return the name if the state of its optimizer is known, and otherwise None."""
    return name if name is not None and name.lower() in NAMES else None
