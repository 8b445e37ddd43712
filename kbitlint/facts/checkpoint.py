"""Facts of a checkpoint folder: its JSON files, its tensors, and which tensors are packed.

``kbitlint.files.checkpoint`` collects them. This module reads no file.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import field
from typing import TYPE_CHECKING, Any

from kbitlint.lazy_dataclass import dataclass

if TYPE_CHECKING:
    from kbitlint.facts.resume import ResumeFacts

#: bits of one element, by safetensors dtype
BITS = {
    "BOOL": 8, "U8": 8, "I8": 8, "F8_E5M2": 8, "F8_E4M3": 8, "F8_E8M0": 8, "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8,
    "I16": 16, "U16": 16, "F16": 16, "BF16": 16, "I32": 32, "U32": 32, "F32": 32, "C64": 64,
    "I64": 64, "U64": 64, "F64": 64, "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6,
}  # fmt: skip
_STATE = ".quant_state.bitsandbytes__"
FLOATS = frozenset({"F16", "BF16", "F32", "F64"})


@dataclass(frozen=True, slots=True)
class Damage:
    """One file, and its problem."""

    file: str
    problem: str


@dataclass(frozen=True, slots=True)
class Contradiction:
    """One difference between the configuration of an adapter and its tensors."""

    name: str
    """The tensor, module or setting; empty for the file as a whole."""
    problem: str
    fails: bool
    """Whether loading the adapter raises. If False, PEFT drops tensors or leaves layers as they are initialised."""


@dataclass(frozen=True, slots=True)
class PackedWeight:
    """One packed weight and the completeness of its quantization state."""

    module: str
    bits: int
    missing: tuple[str, ...] = ()
    """Parts of the quantization state that the checkpoint lacks."""
    conflict: str = ""
    """How its bytes contradict its scales; empty if they agree."""
    blank: bool = False
    """Whether each of its scales is zero, so that it unpacks to zeros only."""


def packed_in(names: Iterable[str]) -> tuple[str, ...]:
    """Return the weights beside which bitsandbytes stored the state of 4-bit packing."""
    return tuple(name.partition(_STATE)[0] for name in names if _STATE in name)


@dataclass(frozen=True, slots=True)
class PackedTensors:
    """All packed weights of a checkpoint."""

    packed: tuple[PackedWeight, ...] = ()
    orphaned: tuple[str, ...] = ()
    """Modules whose quantization state is stored without their weight."""
    floating: tuple[str, ...] = ()
    """Modules with a floating-point matrix that is not packed."""
    method: str | None = None
    """``bitsandbytes``, or another method if tensor names identify it. None if nothing identifies a method."""

    @property
    def modules(self) -> frozenset[str]:
        """Return the modules whose weights are packed."""
        return frozenset(item.module for item in self.packed)


@dataclass(frozen=True, slots=True)
class CheckpointFacts:
    """The content of the JSON files and of the safetensors headers of one folder."""

    folder: str
    config: Mapping[str, Any] | None = None
    """config.json; None if the folder has none."""
    adapter: Mapping[str, Any] | None = None
    """adapter_config.json; None if the folder has none."""
    generation: Mapping[str, Any] | None = None
    """generation_config.json; None if the folder has none."""
    tensors: Mapping[str, Tensor] = field(default_factory=dict)
    """The tensors of the model's safetensors files, by name."""
    adapter_tensors: Mapping[str, Tensor] = field(default_factory=dict)
    """The tensors of adapter_model.safetensors, by name."""
    adapter_file: bool = False
    """Whether adapter_model.safetensors is there and its header was read."""
    highest_token: int = -1
    """The highest id among the added tokens of the tokenizer in the folder; -1 if it names none."""
    damages: tuple[Damage, ...] = ()
    """Files whose content does not match their format."""
    unread: tuple[Damage, ...] = ()
    """Files that were not read, each with the reason."""
    base: CheckpointFacts | None = None
    """The base model of an adapter. None if it is not in a local folder, or the checkpoint is no adapter."""
    zero: frozenset[str] = frozenset()
    """Adapter tensors that contain only zeros."""
    zero_known: bool = False
    """Whether every ``lora_B`` of the adapter was read. If False, ``zero`` may be incomplete."""
    contradictions: tuple[Contradiction, ...] = ()
    """Differences between the adapter's configuration and its tensors."""
    nonfinite: tuple[str, ...] = ()
    """Tensors of the adapter, and vectors of the model, whose first values contain NaN or infinity."""
    packing: PackedTensors = field(default_factory=PackedTensors)
    """What is packed among the tensors."""
    resume: ResumeFacts | None = None
    """What Trainer has saved beside an adapter or a model; None if no run resumes from the folder."""

    @property
    def quantization(self) -> Mapping[str, Any] | None:
        """Return ``quantization_config`` of config.json; None if it is absent or no mapping."""
        value = (self.config or {}).get("quantization_config")
        return value if isinstance(value, Mapping) else None

    @property
    def dtype(self) -> str | None:
        """Return the checkpoint's dtype from ``dtype`` (transformers 5) or ``torch_dtype`` (transformers 4).

        None means that config.json has neither.
        """
        for name in ("dtype", "torch_dtype"):
            value = (self.config or {}).get(name)
            if isinstance(value, str):
                return value.removeprefix("torch.")
        return None


@dataclass(frozen=True, slots=True)
class Tensor:
    """The header entry of one tensor."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    """The offset of the tensor's first byte in the file."""
    end: int
    file: str = ""

    @property
    def numel(self) -> int:
        """Return the number of elements."""
        count = 1
        for size in self.shape:
            count *= size
        return count

    @property
    def nbytes(self) -> int:
        """Return the size in bytes."""
        return self.end - self.start
