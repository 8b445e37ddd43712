"""The bytes of one rank: what a strategy shards, what each rank holds whole, and what it gathers at each moment of a step.

Sources: torch 2.13 (``DistributedDataParallel``, ``fully_shard``), accelerate 1.14 (``fsdp2_prepare_model``), DeepSpeed.
``benchmarks.cost.ranks`` compares them with real ranks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kbitlint.context.launch import SHARDS
from kbitlint.errors import KbitlintError
from kbitlint.lazy_dataclass import dataclass
from kbitlint.model.inspect.walk import named_modules
from kbitlint.model.layers import adapters, checkpointing, quantized

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import nn

    from kbitlint.context.launch import Launch
    from kbitlint.model.memory.live_bytes import Alive

#: kinds of resident bytes that no strategy shards: they are no parameters
_WHOLE = ("quantization state", "buffers")


@dataclass(frozen=True, slots=True)
class Unit:
    """A part of the model whose parameters are gathered at once."""

    path: str
    nbytes: int
    trained: int = 0
    """Bytes of its trainable parameters."""


@dataclass(frozen=True, slots=True)
class Units:
    """The parameters of a model by the unit that is gathered at once. A tied parameter counts once."""

    layers: tuple[Unit, ...]
    """The decoder layers, in their order."""
    embedding: Unit
    """The input embeddings. Empty if they are tied to the head, which then has them."""
    tail: Unit
    """All other parameters: the head, norms outside of layers."""
    integers: int = 0
    """Bytes of packed weights that are stored as integers, which FSDP2 leaves whole."""
    int8: bool = False
    """Whether some weights are bitsandbytes' int8, whose scales are attributes of the weight."""
    shared: str = ""
    """A parameter that modules of two units of FSDP2 share; empty if there is none."""

    @property
    def sharded(self) -> tuple[Unit, ...]:
        """Return all units."""
        return (*self.layers, self.embedding, self.tail)


def units_of(model: nn.Module, *, stored: bool = False) -> Units:
    """Return the units of a model.

    Args:
        model: A model with its adapters.
        stored: Whether packed weights count as if ``bnb_4bit_quant_storage`` were a floating dtype, which can be sharded.
    """
    base: Any = adapters.base_of(model)
    seen: set[int] = set()
    integers, int8 = 0, False
    for module in model.modules():
        packing = quantized.packing_of(module)
        weight = None if packing is None else getattr(module, "weight", None)
        if packing is None or weight is None or weight.is_floating_point() or id(weight) in seen:
            continue
        int8 = int8 or (packing.method == "bitsandbytes" and packing.bits == 8)
        if not stored:
            seen.add(id(weight))
            integers += weight.nbytes
    layers = []
    for path, module in named_modules(model):
        facts = checkpointing.checkpoint_facts(module, path)
        if facts is not None and facts.is_layer:
            layers.append(_unit(path, module, seen))
    head = base.get_output_embeddings() if hasattr(base, "get_output_embeddings") else None
    ends = adapters.input_embedding(base)
    tied = head is not None and getattr(head, "weight", None) is getattr(ends, "weight", None)
    embedding = Unit("", 0)
    if ends is not None and not tied:
        embedding = next((_unit(path, module, seen) for path, module in named_modules(model) if module is ends), embedding)
    shared = _shared(model, [layer.path for layer in layers], ends, head if tied else None)
    return Units(tuple(layers), embedding, _unit("", model, seen), integers, int8, shared)


def _shared(model: nn.Module, layers: list[str], embedding: Any, tied_head: Any) -> str:
    """Return a parameter that modules of two units share; empty if there is none.

    accelerate makes each layer a unit, and the input embeddings; a tied head is of their unit. The rest is the root's. torch
    2.13 refuses a parameter of two units (``FSDPState._validate_no_duplicate_params``).
    """
    unit_of: dict[int, int] = {}
    ends = {id(part) for end in (embedding, tied_head) if end is not None for part in end.modules()}
    for path, module in named_modules(model):
        number = next((n for n, layer in enumerate(layers, 1) if f"{path}.".startswith(f"{layer}.")), 0)
        unit = -1 if id(module) in ends else number
        for name, parameter in module.named_parameters(recurse=False):
            if unit_of.setdefault(id(parameter), unit) != unit:
                return f"{path}.{name}" if path else name
    return ""


def _unit(path: str, module: nn.Module, seen: set[int]) -> Unit:
    new = {id(parameter): parameter for parameter in module.parameters() if id(parameter) not in seen}
    seen.update(new)
    trained = sum(parameter.nbytes for parameter in new.values() if parameter.requires_grad)
    return Unit(path, sum(parameter.nbytes for parameter in new.values()), trained)


@dataclass(frozen=True, slots=True)
class Rank:
    """One rank of a launch. Each rank runs a batch of its own, so its activations and logits are those of one card."""

    launch: Launch
    units: Units

    def __post_init__(self) -> None:
        if self.shards[0] and self.units.int8:
            raise KbitlintError(
                f"strategy {self.launch.strategy!r} takes no int8 weights of bitsandbytes: it parts them from their scales; "
                "use ddp, or 4 bits"
            )
        if self.launch.strategy == "fsdp2" and self.units.shared:
            raise KbitlintError(
                f"strategy 'fsdp2' takes no parameter that two of its units share, as {self.units.shared} is: torch refuses it"
            )
        if self.launch.strategy in ("fsdp1", "zero3") and self.units.integers:
            raise KbitlintError(
                f"strategy {self.launch.strategy!r} takes no packed weights that are stored as integers: "
                "set bnb_4bit_quant_storage=torch.bfloat16 (--quantize nf4-bf16)"
            )

    @property
    def shards(self) -> tuple[bool, bool, bool]:
        """Return whether it shards (weights, gradients, optimizer state)."""
        return SHARDS[self.launch.strategy]

    def share(self, nbytes: int) -> int:
        """Return one rank's share of some bytes."""
        return -(-nbytes // self.launch.ranks)

    def resident(self, kinds: Mapping[str, int]) -> dict[str, int]:
        """Return the bytes of the model's tensors that a rank holds on its card for the whole run, by kind.

        ``device_map`` puts an equal part of the layers on each card. The figures are those of the last one, which also holds
        head, logits and loss.
        """
        found = dict(kinds)
        if self.launch.strategy == "device_map":
            ends = self.units.tail.nbytes
            found["embeddings and head"] = min(found.get("embeddings and head", 0), ends)
            return {kind: count if kind == "embeddings and head" else self.share(count) for kind, count in found.items()}
        if not self.shards[0]:
            return found
        for kind in found.keys() - set(_WHOLE):
            whole = self.units.integers if kind == "quantized weights" else 0
            rest = 0 if self.launch.offload else self.share(found[kind] - whole)
            found[kind] = whole + rest
        return found

    def gradients(self, nbytes: int) -> int:
        """Return the bytes of the gradients that a rank holds at the end of a step."""
        return self.share(nbytes) if self.shards[1] else nbytes

    def earlier(self, nbytes: int) -> int:
        """Return the bytes of gradients that a rank holds of earlier batches which are accumulated.

        transformers' Trainer runs all batches but the last one under accelerate's ``no_sync``. FSDP then reduces nothing, and
        each rank holds whole gradients. DeepSpeed parts those of every batch.
        """
        return nbytes if self.launch.strategy in ("fsdp1", "fsdp2") else self.gradients(nbytes)

    def buckets(self, gradients: int) -> int:
        """Return the bytes of DDP's gradient buckets, which live for the whole run (``gradient_as_bucket_view=False``)."""
        return gradients if self.launch.strategy == "ddp" else 0

    def optimizer(self, device: int, host: int) -> tuple[int, int]:
        """Return the bytes of the optimizer's state and of offloaded weights on (the card, the host)."""
        if self.launch.strategy == "device_map":
            return self.share(device), host
        if not self.shards[2]:
            return device, host
        if not self.launch.offload:
            return self.share(device), self.share(host)
        weights = sum(unit.nbytes for unit in self.units.sharded)
        return 0, self.share(host) + self.share(device) + self.share(weights)

    def beside(self, moment: str, alive: Alive) -> int:
        """Return the bytes that a rank holds at a moment beside what its step on one card holds; negative if it holds less."""
        if self.launch.strategy == "device_map":
            return self.share(alive.activations) - alive.activations
        if not self.shards[0]:
            return 0
        number, backward = self._place(moment)
        reduced = 0
        if backward and alive.gradients:
            here = min(alive.gradients, self.units.layers[number].trained if number is not None else 0)
            after = self.units.layers[number + 1].trained if number is not None and number + 1 < len(self.units.layers) else 0
            reduced = self.share(alive.gradients - here) - (alive.gradients - here)
            if self.launch.offload:
                reduced = here - alive.gradients
            reduced += min(after, alive.gradients)  # the input of the last reduce-scatter is kept until the next one
        return self._gathered(number, moment, backward=backward) + reduced

    def _place(self, moment: str) -> tuple[int | None, bool]:
        """Return (the number of the layer that runs at a moment or None, whether it is in the backward pass)."""
        path, _, passed = moment.rpartition(", ")
        number = next((n for n, unit in enumerate(self.units.layers) if f"{path}.".startswith(f"{unit.path}.")), None)
        return number, passed == "backward"

    def _gathered(self, number: int | None, moment: str, *, backward: bool) -> int:
        """Return the bytes of weights that are gathered at a moment.

        FSDP2 gathers a unit into one buffer and copies it out. In the forward pass the buffer lives until the next unit is
        gathered; in the backward pass the buffer of the next unit is filled beside the one that runs. Embeddings are a unit
        of their own, and the head keeps its weights from its forward to its backward pass. FSDP1 and ZeRO 3 have no second
        buffer, and keep embeddings and head.
        """
        layers, embedding, tail = self.units.layers, self.units.embedding.nbytes, self.units.tail.nbytes
        last = layers[-1].nbytes if layers else 0
        fsdp2 = self.launch.strategy == "fsdp2"
        tied = tail if fsdp2 and not embedding else 0
        root = tied if fsdp2 else embedding + tail
        if number is None:
            if embedding and moment.startswith(f"{self.units.embedding.path},"):
                return 2 * embedding if fsdp2 else root
            return max(root, tail) + (last if backward or tied or not fsdp2 else tail)
        here = layers[number].nbytes
        if backward:
            before = layers[number - 1].nbytes if number else embedding if fsdp2 else 0
            return root + here + before
        return root + here * (2 if fsdp2 else 1)
