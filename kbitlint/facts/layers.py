"""Facts of one layer or one stack of layers: quantization, adapters, checkpointing and gradients.

``kbitlint.model`` collects them. This module imports no torch.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

from kbitlint.lazy_dataclass import dataclass

if TYPE_CHECKING:
    from kbitlint.facts.reentry import Reentry


@functools.cache
def short_name(dtype: object) -> str:
    """Return a dtype in the spelling of reports: ``bfloat16``."""
    return str(dtype).removeprefix("torch.")


@dataclass(frozen=True, slots=True)
class Packing:
    """The quantization of one layer."""

    method: str
    bits: int | None
    kind: str
    """The quantized data type in the spelling of the method's library: nf4, fp4, int8, ..."""
    compute_dtype: str | None = None
    features: tuple[int, int] | None = None
    """(in, out) features of the weight before packing. None if the layer does not record them."""
    trains: bool | None = None
    """Whether the layer's kernel passes a gradient to its input. None if the layer's class does not record it."""
    double: bool = False
    """Whether the block statistics are quantized too (double quantization; QLoRA, section 3)."""


@dataclass(frozen=True, slots=True)
class QuantizedFacts:
    """One quantized layer."""

    path: str
    packing: Packing
    lacks: str = ""
    """The attribute that a bitsandbytes weight needs and that is None: ``quant_state`` or ``SCB``; empty if it has both."""
    conflict: str = ""
    """The difference between the packed bytes and the recorded state; empty if they agree."""
    repacked: bool = False
    """Whether the weight is packed for a kernel of the CPU without gradients, as a pass in eval mode leaves it."""
    repacks: bool = False
    """Whether a pass in eval mode repacks the weight for a kernel without gradients."""
    blank: bool = False
    """Whether the weight unpacks to zeros only."""


@dataclass(frozen=True, slots=True)
class AdapterFacts:
    """One adapter with the settings of its PEFT configuration."""

    name: str
    kind: str
    active: bool
    inference_mode: bool
    rank: int | None
    bias: str
    targets: tuple[str, ...] = ()
    """The names in ``target_modules``; empty if it is a pattern or not set."""
    invoked: bool = False
    """Whether the adapter starts at invocation tokens (aLoRA). Each forward call passes their positions to each layer."""
    searched: bool = True
    """Whether the model that holds the adapter looks for invocation tokens. Of PEFT 0.21's, those for causal LM do."""
    entries: tuple[tuple[str, str], ...] = ()
    """(key, entry) of the other settings that name modules or parameters: ``modules_to_save``, ``rank_pattern``, ..."""

    @property
    def through_cache(self) -> bool:
        """Return whether the adapter passes keys and values through the cache, which checkpointing drops.

        PEFT rejects such an adapter if it sees checkpointing. Otherwise the forward pass fails with a size mismatch.
        """
        return self.kind in ("PREFIX_TUNING", "CARTRIDGE")

    @property
    def by_task(self) -> bool:
        """Return whether PEFT passes the task of each sequence through hooks, which exist in the forward pass only."""
        return self.kind == "POLY"


@dataclass(frozen=True, slots=True)
class UnpackedLayerFacts:
    """A layer of a quantized class whose weight is an ordinary floating-point tensor."""

    path: str
    class_name: str
    bits: int
    dtype: str
    pending: bool
    """Whether the weight packs itself at its next move to a device."""
    foreign: bool = False
    """Whether the weight is a plain parameter, tied or put there by hand, and not of the class that packs."""


@dataclass(frozen=True, slots=True)
class LinearFacts:
    """A Linear of a quantized model that is not packed, although no setting excludes it from quantization."""

    path: str
    class_name: str
    dtype: str
    numel: int


@dataclass(frozen=True, slots=True)
class LayerCheckpointing:
    """One module that supports gradient checkpointing."""

    path: str
    class_name: str
    enabled: bool
    training: bool
    reentry: Reentry
    is_layer: bool
    """Whether the module is a checkpointed layer of transformers. Such a layer drops the cache itself."""
    rebindable: bool
    """Whether the module's bound checkpoint function can be bound again with ``use_reentrant=False``."""
    redraws: bool = False
    """Whether the bound function does not preserve the random state, and dropout is active in the module."""


@dataclass(frozen=True, slots=True)
class GradientFeed:
    """The sources of ``requires_grad`` for the input of one stack of checkpointed layers."""

    stack: str
    """The path of the module that contains the layers, such as ``model.layers``."""
    certain: bool
    """Whether the input certainly requires grad: because of a hook, or of a trainable parameter in an input embedding."""
    possible: str | None
    """A module with trainable parameters outside the layers that may feed the stack; None if there is none."""
    fed_by_layers: frozenset[str]
    """The layers after a layer of the stack that trains and does not checkpoint."""
    trains_inside: tuple[str, ...]
    """For each trainable parameter inside the stack's checkpointed layers, the path of its layer."""
