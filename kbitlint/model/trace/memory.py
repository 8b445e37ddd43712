"""The memory that training a model needs, measured on a step without weights.

Bytes of resident tensors are counted. The rest is simulated. Each operator of the traced step reports its allocations. autograd
holds and frees them as in a real step. The peak thus includes activations, recomputed layers, unpacked weights of one product
and the float32 copy of the logits. It excludes the CUDA context, the workspaces of cuBLAS (some ten MB) and fragmentation.
"""

from __future__ import annotations

import weakref
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from kbitlint.model.inspect.walk import collect, named_modules
from kbitlint.model.layers import adapters, checkpointing, quantized
from kbitlint.model.layers.experts import packed_kind, path_of, state_bytes
from kbitlint.model.trace.cost import run_twin
from kbitlint.model.trace.step import UntraceableError
from kbitlint.model.trace.twin import twin_of
from kbitlint.result import KINDS, OFF, ON, StateMemory, StepMemory

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kbitlint.context import TrainingContext
    from kbitlint.facts.model import ModelFacts

#: optimizer -> bytes of state for each trainable element. None is two tensors in the dtype of the element.
OPTIMIZERS: dict[str, float | None] = {"adamw": None, "adamw8bit": 2 + 8 / 256, "paged_adamw_8bit": 0.0, "sgd": 0.0}
#: The least number of elements for 8-bit state. bitsandbytes keeps the state of smaller tensors in 32 bits.
_MIN_8BIT = 4096


def measure(name: str, model: nn.Module, context: TrainingContext, *, optimizer: str, every: int | None) -> StateMemory:
    """Return the memory that training a model needs in its present state, in bytes.

    Args:
        name: The name of the state in the report.
        model: A model with trainable parameters, live or on the meta device. It is only read.
        context: Autocast, batch size and sequence length.
        optimizer: A key of ``OPTIMIZERS``.
        every: Measures one more step, in which every n-th layer checkpoints. None measures only the steps in which no layer and
            every layer checkpoints.

    Returns:
        Resident bytes by kind, bytes of gradients and optimizer state, and one StepMemory for each checkpointing mode. If a
        step fails, ``failure`` holds the reason, and later modes are missing.
    """
    facts = collect(model)
    resident = dict.fromkeys(KINDS, 0) | _resident(model, facts)
    gradients = sum(parameter.nbytes for parameter in facts.trainable)
    state = sum(_state_bytes(parameter.numel, parameter.nbytes, optimizer) for parameter in facts.trainable)
    held = sum(resident.values()) + state
    steps: dict[str, StepMemory] = {}
    failure = None
    modes = [(OFF, 0), (ON, 1)] + ([(f"every {_ordinal(every)} layer", every)] if every else [])
    for mode, stride in modes:
        twin = twin_of(model)
        if not _checkpoint(twin, stride):
            continue
        live = LiveBytes()
        try:
            span = run_twin(twin, context, facts=facts, live=live)
        except UntraceableError as error:
            failure = str(error)
            break
        if span.failure:
            failure = span.failure
            break
        logits = sum(size for path, size in span.saved.items() if _is_head(path, model))
        steps[mode] = StepMemory(sum(span.saved.values()) - logits, logits, held + live.peak, live.peak_at)
    return StateMemory(name, resident, gradients, state, steps, failure)


def _ordinal(number: int) -> str:
    teens = number % 100 in (11, 12, 13)
    return f"{number}{'th' if teens else {1: 'st', 2: 'nd', 3: 'rd'}.get(number % 10, 'th')}"


def _state_bytes(numel: int, nbytes: int, optimizer: str) -> int:
    rate = OPTIMIZERS[optimizer]
    if rate is None:
        return 2 * nbytes
    if rate and numel < _MIN_8BIT:
        return 8 * numel
    return round(rate * numel)


def _resident(model: nn.Module, facts: ModelFacts) -> dict[str, int]:
    """Return the bytes of the tensors that live for the whole run, by kind. A tied tensor counts once."""
    base: Any = adapters.base_of(model)
    ends = {id(module) for module in _ends(base)}
    kinds = {
        parameter.path: "adapters"
        if parameter.adapter
        else "quantized weights"
        if parameter.packed
        else "norms"
        if parameter.norm
        else "other weights"
        for parameter in facts.parameters
    }
    found: dict[str, int] = {}
    for path, module in named_modules(model):
        packing = quantized.packing_of(module)
        if packing is not None:
            found["quantization state"] = found.get("quantization state", 0) + quantized.state_bytes(module, packing)
        bank = path_of(path) if packed_kind(module) is not None else ""
        if bank:
            found["quantization state"] = found.get("quantization state", 0) + state_bytes(module)
        for name, parameter in module._parameters.items():  # noqa: SLF001  # parameters of the module alone, with their names
            kind = kinds.pop(bank or (f"{path}.{name}" if path else name), None) if parameter is not None else None
            if kind is None or parameter is None:
                continue
            kind = "embeddings and head" if id(module) in ends and kind == "other weights" else kind
            found[kind] = found.get(kind, 0) + parameter.numel() * parameter.element_size()
        for buffer in module._buffers.values():  # noqa: SLF001  # buffers of the module alone
            if buffer is not None:
                found["buffers"] = found.get("buffers", 0) + buffer.numel() * buffer.element_size()
    return found


def _ends(base: Any) -> Iterator[nn.Module]:
    """Yield the modules of the input embeddings and the output head of every transformers model in the tree."""
    from transformers import PreTrainedModel  # takes a second to import

    for module in base.modules():
        if isinstance(module, PreTrainedModel):
            for end in (adapters.input_embedding(module), module.get_output_embeddings()):
                if isinstance(end, nn.Module):
                    yield from end.modules()


def _is_head(path: str, model: nn.Module) -> bool:
    """Return whether the bytes that a module saves belong to the logits and the loss.

    The path is empty for the outermost model, which computes both.
    """
    base: Any = adapters.base_of(model)
    head = base.get_output_embeddings() if hasattr(base, "get_output_embeddings") else None
    heads = {place for place, module in named_modules(model) if module is head}
    return not path or path in heads


def _checkpoint(twin: nn.Module, stride: int) -> bool:
    """Enable checkpointing for every n-th layer, or for none if ``stride`` is 0.

    Return False if the class of the model does not support checkpointing.
    """
    base: Any = adapters.base_of(twin)
    if stride:
        if not checkpointing.supports_checkpointing(base):
            return False
        checkpointing.enable(base, use_reentrant=False)
    flagged = [module for module in twin.modules() if checkpointing.FLAG in module.__dict__]
    layers = [module for module in flagged if getattr(checkpointing.checkpoint_facts(module, ""), "is_layer", False)]
    for number, module in enumerate(layers):
        module.__dict__[checkpointing.FLAG] = bool(stride) and number % stride == 0
    if not stride:
        for module in flagged:
            module.__dict__[checkpointing.FLAG] = False
    return True


@dataclass(slots=True)
class LiveBytes:
    """The bytes of all live storages, and their peak."""

    now: int = 0
    peak: int = 0
    peak_at: str = ""
    """The module and pass that ran at the peak."""
    at: str = ""
    """The module and pass that run now."""
    _alive: dict[int, tuple[weakref.ref[Any], int]] = field(default_factory=dict)
    """(weak reference, bytes) of each live storage, by its address."""

    def name(self, moment: str) -> None:
        """Set the module and pass that run from now on."""
        self.at = moment

    def see(self, tensor: Tensor) -> None:
        """Count a tensor's storage until it is freed."""
        storage = tensor.untyped_storage()
        key = storage._cdata  # noqa: SLF001  # the only identity of a storage
        if key in self._alive:
            return
        nbytes = storage.nbytes()
        self._alive[key] = (weakref.ref(storage, lambda _: self._free(key)), nbytes)
        self.now += nbytes
        if self.now > self.peak:
            self.peak, self.peak_at = self.now, self.at

    def own(self, tensor: Tensor) -> None:
        """Exclude a tensor that counts among the resident ones."""
        self._alive[tensor.untyped_storage()._cdata] = (weakref.ref(tensor.untyped_storage()), 0)  # noqa: SLF001  # see above

    def _free(self, key: int) -> None:
        self.now -= self._alive.pop(key)[1]
