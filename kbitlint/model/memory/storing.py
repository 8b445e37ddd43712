"""The memory of what a run does with whole weights: loading them, saving adapters, merging adapters into them.

``sharding`` has what ranks that share the weights do. Sources: transformers 5.23 (``core_model_loading.py``,
``integrations/bitsandbytes.py``), PEFT 0.21 (``tuners/lora/bnb.py``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from kbitlint.lazy_dataclass import dataclass
from kbitlint.memory_result import Phase
from kbitlint.model.attributes import attribute
from kbitlint.model.inspect.walk import named_modules
from kbitlint.model.layers import adapters, quantized

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import nn

    from kbitlint.facts.layers import Packing

#: bytes of an element of the matrices that a merge into a 4-bit weight holds at once: the unpacked weight, the adapters'
#: product and their sum in float32
_MERGED, _SUM = 2 + 4 + 4, 4
#: device -> bytes of an element that packing to 4 bits allocates beside its result. The CPU's kernel works in float32.
_PACKING = {"cuda": 0, "cpu": 3 * 4}


def loading(model: nn.Module, device: str = "cuda") -> Phase:
    """Return the memory of loading a model to a device.

    transformers reads the weights one after the other in the order of their names. A weight that it packs itself lies on the
    card unpacked until its packed form is made; the host holds it once. On the CPU, all weights lie in the mapped file, and
    those that are not packed stay there.
    """
    base: Any = adapters.base_of(model)
    packs = not getattr(attribute(base, "hf_quantizer"), "pre_quantized", False)
    weights = sorted(_weights(base), key=lambda weight: _natural(weight.path))
    held = sum(weight.read for weight in weights) if device == "cpu" else 0
    most = largest = 0
    at = ""
    for weight in weights:
        packed = packs and weight.packed
        kept = 0 if device == "cpu" and not packed else weight.kept
        beside = (weight.read if device != "cpu" else 0) + weight.scratch + _PACKING[device] * weight.elements if packed else 0
        if held + kept + beside > most:
            most, at = held + kept + beside, weight.path
        largest = max(largest, weight.read)
        held += kept
    words = "packed weight by weight" if packs and any(weight.packed for weight in weights) else "weights as they are stored"
    return Phase("loading", words, most + sum(buffer.nbytes for buffer in base.buffers()), at, largest)


def kept_bytes(model: Any) -> int:
    """Return the bytes of a base model's weights as they are held once they are loaded, with their quantization state."""
    return sum(weight.kept for weight in _weights(adapters.base_of(model)))


@dataclass(frozen=True, slots=True)
class _Weight:
    """One weight of a base model."""

    path: str
    kept: int
    """Bytes as it is held, with its quantization state."""
    read: int
    """Bytes as it is read."""
    elements: int
    packed: bool
    scratch: int = 0
    """Bytes that packing allocates beside its result: the maxima before they are packed too, int8's float16 copy."""


def _weights(base: nn.Module) -> Iterator[_Weight]:
    """Yield each weight of a base model. A tied weight comes once, and weights of adapters do not."""
    dtype = _load_dtype(base)
    seen: set[int] = set()
    for path, module in named_modules(base):
        packing = quantized.packing_of(module)
        for name, parameter in module.named_parameters(recurse=False):
            if id(parameter) in seen or "lora_" in path:
                continue
            seen.add(id(parameter))
            place = f"{path}.{name}".removeprefix(".").replace(".base_layer.", ".")  # as a checkpoint names it
            if packing is None or name != "weight" or packing.features is None:
                yield _Weight(place, parameter.nbytes, parameter.nbytes, parameter.numel(), packed=False)
                continue
            elements = packing.features[0] * packing.features[1]
            kept = parameter.nbytes + quantized.state_bytes(module, packing)
            copies = packing.bits == 8 and dtype is not torch.float16
            scratch = 2 * elements if copies else 4 * -(-elements // 64) if packing.double else 0
            yield _Weight(place, kept, elements * dtype.itemsize, elements, packed=True, scratch=scratch)


def _load_dtype(base: Any) -> torch.dtype:
    """Return the dtype in which weights are read: that of the config, or of the embeddings."""
    known = attribute(attribute(base, "config"), "dtype")
    embedding = attribute(adapters.input_embedding(base), "weight")
    found = known if isinstance(known, torch.dtype) else getattr(embedding, "dtype", None)
    return found if isinstance(found, torch.dtype) else torch.bfloat16


def _natural(name: str) -> list[tuple[int, Any]]:
    """Return the key by which transformers orders weights: numbers as numbers."""
    return [(0, int(part)) if part.isdecimal() else (1, part) for part in name.split(".")]


def saving(model: nn.Module, held: int) -> Phase | None:
    """Return the memory of saving what trains between two steps; None if nothing does.

    safetensors copies all of it to the host at once. The card holds nothing beside.
    """
    copied = sum(parameter.nbytes for parameter in model.parameters() if parameter.requires_grad)
    return Phase("saving", "what trains", held, "the end of a step", copied) if copied else None


def merging(model: nn.Module, device: str) -> Iterator[Phase]:
    """Yield the memory of ``merge_and_unload()``: into 4-bit weights, and into the base loaded in 16 bits.

    PEFT merges layer by layer. A merge into a 4-bit weight leaves the card for the host, and is packed anew on the card.
    """
    base: Any = adapters.base_of(model)
    layers = [(path, module) for path, module in named_modules(base) if hasattr(module, "lora_A")]
    packings = [(path, quantized.packing_of(module.get_base_layer())) for path, module in layers]
    found = [(packing.features, path) for path, packing in packings if packing is not None and packing.features is not None]
    if not found or not all(packing is not None and _is_4bit(packing) for _, packing in packings):
        return
    held = sum(parameter.nbytes for parameter in model.parameters()) + sum(buffer.nbytes for buffer in model.buffers())
    states = ((module, quantized.packing_of(module)) for module in base.modules())
    held += sum(quantized.state_bytes(module, packing) for module, packing in states if packing is not None)
    elements, path = max((fan_in * fan_out, path) for (fan_in, fan_out), path in found)
    again = ((_SUM if device == "cuda" else 0) + _PACKING[device]) * elements + elements // 2 + 4 * -(-elements // 64)
    yield Phase("merging", "into the packed weights", held + _MERGED * elements + again, path, _SUM * elements)
    unpacked = sum(weight.read for weight in _weights(base))
    yield Phase("merging", "into the base, loaded in 16 bits", unpacked + 2 * 4 * elements, path)


def _is_4bit(packing: Packing) -> bool:
    return packing.method == "bitsandbytes" and packing.bits == 4
