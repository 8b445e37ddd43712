"""The bytes that live for the whole run: tensors of the model, and the state of the optimizer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import nn

from kbitlint.model.inspect.walk import named_modules
from kbitlint.model.layers import adapters, quantized
from kbitlint.model.layers.experts import packed_kind, path_of, state_bytes
from kbitlint.upstream import optimizers

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kbitlint.facts.model import ModelFacts


def resident_bytes(model: nn.Module, facts: ModelFacts) -> dict[str, int]:
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


def other_models(live: Any, model: nn.Module) -> int:
    """Return the bytes of the models that a Trainer holds beside the one it trains: reference, value and reward models.

    A tensor that they share with it counts for the trained model alone.
    """
    known = {id(tensor) for tensor in (*model.parameters(), *model.buffers())}
    found = 0
    for value in () if live is model else vars(live).values():
        for other in value if isinstance(value, (list, tuple)) else (value,):
            for module in other.modules() if isinstance(other, nn.Module) else ():
                new = {id(tensor): tensor for tensor in (*module.parameters(recurse=False), *module.buffers(recurse=False))}
                packing = quantized.packing_of(module) if new.keys() - known else None
                found += 0 if packing is None else quantized.state_bytes(module, packing)
                found += sum(tensor.nbytes for key, tensor in new.items() if key not in known)
                known |= new.keys()
    return found


def optimizer_bytes(model: nn.Module, name: str) -> tuple[int, int]:
    """Return the bytes of the optimizer's state on (the device, the host), for the trainable parameters of a model."""
    optimizer = optimizers.find(name)
    shapes = {id(p): (tuple(p.shape), p.element_size()) for p in model.parameters() if p.requires_grad}
    states = [optimizer.state(shape, size) for shape, size in shapes.values()]
    return sum(device for device, _ in states), sum(host for _, host in states)


def saved_by_double_quantization(model: nn.Module) -> int:
    """Return the bytes that double quantization of the packed 4-bit weights would save; 0 if it is on, or none is packed."""
    saved = 0
    for module in model.modules():
        packing = quantized.packing_of(module)
        if (
            packing is None
            or packing.method != "bitsandbytes"
            or packing.bits != 4
            or packing.double
            or packing.features is None
        ):
            continue
        blocks = -(-packing.features[0] * packing.features[1] // 64)
        saved += 4 * blocks - (blocks + -(-blocks // 256) * 4 + 256 * 4 + 4)
    return max(saved, 0)
