"""Facts of one layer or one stack of layers: how it is packed, adapted, checkpointed, and fed with a gradient."""

from __future__ import annotations

import enum
import functools
from dataclasses import dataclass


@functools.cache
def short_name(dtype: object) -> str:
    """A dtype as reports spell it: ``bfloat16``."""
    return str(dtype).removeprefix("torch.")


@dataclass(frozen=True, slots=True)
class Packing:
    """How one layer is quantized."""

    method: str
    bits: int | None
    kind: str
    """The data type of the method's own, as its library calls it: nf4, fp4, int8, ..."""
    compute_dtype: str | None = None
    features: tuple[int, int] | None = None
    """(in, out) features of the weight before packing."""
    trains: bool | None = None
    """Whether a gradient passes the layer's kernel to its input, where the class says so; None where it does not say."""
    double: bool = False
    """Whether the block statistics are quantized too (double quantization; QLoRA, section 3)."""


@dataclass(frozen=True, slots=True)
class AdapterFacts:
    """One adapter, as its PEFT configuration describes it."""

    name: str
    kind: str
    active: bool
    inference_mode: bool
    rank: int | None
    bias: str
    targets: tuple[str, ...] = ()
    """The names in ``target_modules``, where it is a list of names."""
    invoked: bool = False
    """Whether it starts at invocation tokens (aLoRA): where they are is handed to each layer in every call."""

    @property
    def through_cache(self) -> bool:
        """Whether the adapter hands its keys and values to the layers through the cache, which checkpointing drops.

        PEFT refuses these with checkpointing where it sees both; they fail with a size mismatch where it does not.
        """
        return self.kind in ("PREFIX_TUNING", "CARTRIDGE")


class Reentry(enum.Enum):
    """What ``use_reentrant`` is for one checkpointed module."""

    NO = "False"
    YES = "True"
    UNSET = "unset"
    """Nothing was passed, so torch falls back to reentrant and warns (torch 2.13 still does)."""
    UNKNOWN = "unknown"
    """The bound function is not one whose arguments can be read."""

    @property
    def reentrant(self) -> bool:
        """Whether the checkpoint is certain to be reentrant."""
        return self in (Reentry.YES, Reentry.UNSET)


@dataclass(frozen=True, slots=True)
class LayerCheckpointing:
    """One module that can checkpoint."""

    path: str
    class_name: str
    enabled: bool
    training: bool
    reentry: Reentry
    is_layer: bool
    """Whether the module is one of transformers' checkpointed layers, which drop the cache themselves."""
    rebindable: bool
    """Whether a checkpoint function is bound to the module that can be told not to reenter."""


@dataclass(frozen=True, slots=True)
class GradientFeed:
    """What is known of the input of one stack of checkpointed layers."""

    stack: str
    """The path that holds the layers, such as ``model.layers``."""
    certain: bool
    """Whether the input requires grad for certain: by a hook, or a trainable parameter of an input embedding."""
    possible: str | None
    """A module with trainable parameters that runs before the stack or after it."""
    fed_by_layers: frozenset[str]
    """The layers that come after a layer of the stack which trains and does not checkpoint."""
    trains_inside: tuple[str, ...]
    """For each trainable parameter in the stack's checkpointed layers, its layer."""
