"""Facts of a model object. Rules read these and never walk the model themselves.

Facts contain no tensor and no module. Dtypes and devices are strings. Paths are dotted paths of the user's own
model, without the wrappers of PEFT, DDP and torch.compile. ``kbitlint.model.inspect.walk`` collects them.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from kbitlint.facts.coverage import coverage_of
from kbitlint.lazy_dataclass import dataclass
from kbitlint.sizes import short_count

if TYPE_CHECKING:
    from kbitlint.facts.layers import (
        AdapterFacts,
        GradientFeed,
        LayerCheckpointing,
        LinearFacts,
        QuantizedFacts,
        UnpackedLayerFacts,
    )
    from kbitlint.facts.requests import DeadSkip, UnmatchedEntry


@dataclass(frozen=True, slots=True)
class ParameterFacts:
    """One parameter. A tied parameter is listed once, under its first path."""

    path: str
    module: str
    dtype: str
    shape: tuple[int, ...]
    numel: int
    nbytes: int
    requires_grad: bool
    device: str
    adapter: bool
    """Whether an adapter or another wrapper added the parameter. If False, it belongs to the base model."""
    adapter_name: str
    """The name of the parameter's PEFT adapter; empty if it belongs to none."""
    outside: bool
    """Whether the parameter is outside the base model, in a wrapper around it."""
    packed: bool
    """Whether the parameter is the weight of a quantized layer."""
    norm: bool
    floating: bool
    bank: bool = False
    """Whether the parameter stacks the matrices of several experts."""
    held: bool = False
    """Whether hooks make the parameter's module compute in float32 for any input dtype. Its dtype is then intended."""
    inference: bool = False
    """Whether the parameter was created under ``torch.inference_mode``. Such a tensor is read-only outside that mode."""
    least: float = 0.0
    """The smallest magnitude in a trained vector of half precision; 0.0 for every other parameter."""


@dataclass(frozen=True, slots=True)
class NormFacts:
    """One normalization layer with parameters of its own, or one bare parameter that acts as the weight of a norm."""

    path: str
    class_name: str
    dtypes: tuple[tuple[str, str], ...]
    """(parameter or buffer name, dtype) of each floating-point tensor of the norm itself."""
    nbytes: int
    """Bytes of the norm's half-precision tensors. A cast to float32 adds this many."""
    bare: bool
    """Whether the norm is a bare parameter of another module, not a module of its own."""
    output_dtype: str | None
    """The dtype that the output must have for a float32 input, if the norm's code reads it from its weight. Else None."""
    adapter: bool
    transparent: bool = False
    """Whether hooks make the norm return its input's dtype for any dtype of its weight."""
    upcasts: bool | None = None
    """Whether the norm computes its statistics in float32 for half-precision input. None if its code cannot be read."""

    @property
    def promotes(self) -> bool:
        """Return whether the norm may turn half-precision input into float32.

        False for a norm of an adapter, a bare norm, and a norm with the hooks of ``transparent``. For other norms,
        True if all their tensors are float32.
        """
        wide = all(dtype == "float32" for _, dtype in self.dtypes)
        return wide and not (self.bare or self.adapter or self.transparent)


@dataclass(frozen=True, slots=True)
class HeadFacts:
    """The module that computes the model's final output: the output embedding of a language model, or a task head."""

    path: str
    task: str
    """The task in the name of the model's class (``SequenceClassification``); empty for an output embedding."""


@dataclass(frozen=True, slots=True)
class TowerFacts:
    """A model within the model whose input is not text."""

    path: str
    class_name: str
    reads: str
    """The name of its main input: ``pixel_values``, ``input_features``, ..."""


@dataclass(frozen=True, slots=True)
class AdaptedFacts:
    """One layer of the base model with a PEFT adapter."""

    path: str
    merged: bool
    """Whether the adapter is currently merged into the layer's weight."""
    reader: str = ""
    """The class whose forward computes with the layer's weight instead of calling the layer; empty if none does."""
    dead: tuple[tuple[str, str], ...] = ()
    """(adapter, reason) of each trainable LoRA adapter here whose gradient is zero for every input."""


@dataclass(frozen=True, slots=True)
class EmbeddingFacts:
    """The input embedding of one transformers model in the tree, as returned by ``get_input_embeddings``."""

    path: str
    owner: str
    """The path of the model to which the input embedding belongs."""
    hookable: bool
    """Whether a forward hook on the embedding can run. A hook on a ModuleList never does."""


@dataclass(frozen=True, slots=True)
class InputGradHooks:
    """The forward hooks of one module that make its output require grad."""

    path: str
    names: tuple[str, ...]
    orphans: int
    """Number of hooks that ``disable_input_require_grads()`` would not remove."""


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """The facts of one walk over a model."""

    class_name: str
    model_type: str
    parameters: tuple[ParameterFacts, ...]
    norms: tuple[NormFacts, ...]
    quantized: tuple[QuantizedFacts, ...]
    embeddings: tuple[EmbeddingFacts, ...]
    input_grad_hooks: tuple[InputGradHooks, ...]
    checkpoints: tuple[LayerCheckpointing, ...]
    models: tuple[str, ...]
    """The path of every transformers model in the tree; the base model has the empty path."""
    adapters: tuple[AdapterFacts, ...]
    adapter_layers: int
    has_adapters: bool
    """Whether PEFT, another library or a wrapper added parameters to the base model."""
    claims_quantization: str | None
    """The quantization method that the model records, for example in its config. None if it records none."""
    supports_checkpointing: bool
    use_cache: tuple[str, ...]
    """The configs in which ``use_cache`` is on: ``config``, ``config.text_config``, ..."""
    training: bool
    adapter_training: bool | None
    """Whether any module that PEFT added is in training mode. None if there is no such module.

    PEFT copies some modules together with their mode, so a single module in eval mode proves nothing.
    """
    bypassed: str | None
    """Why no adapter takes part in the forward pass: ``disabled`` or ``merged``. None if adapters take part."""
    compiled: bool
    """Whether torch.compile wraps the model or a part of it. It then decides how checkpoints run."""
    feeds: tuple[GradientFeed, ...] = ()
    """The sources of ``requires_grad`` for each stack of checkpointed layers."""
    tied: tuple[tuple[str, str], ...] = ()
    """(path, first path) for each further path of a tied parameter."""
    dtype: str | None = None
    """The dtype that the config records: the checkpoint's, or the one requested at loading. None if it records none."""
    keeps_float32: tuple[str, ...] = ()
    """Names of the modules whose weights the model's class keeps in float32 by design."""
    hollow: tuple[UnpackedLayerFacts, ...] = ()
    unconverted: tuple[LinearFacts, ...] | None = ()
    """None if the model does not record which layers quantization should exclude."""
    offloaded: tuple[str, ...] = ()
    """Modules whose weights accelerate loads from the CPU or the disk for each call."""
    heads: tuple[HeadFacts, ...] = ()
    towers: tuple[TowerFacts, ...] = ()
    adapted: tuple[AdaptedFacts, ...] = ()
    vocabulary: tuple[tuple[str, int, int], ...] = ()
    """(key of a config, its value, rows of the input embedding) of sizes and token ids that need more rows than there are."""
    unmatched: tuple[UnmatchedEntry, ...] = ()
    """Entries of adapter configs that match nothing in the model."""
    dead_skips: tuple[DeadSkip, ...] = ()
    """Names that quantization should have left out, and that match no module."""
    untied: tuple[tuple[str, str], ...] = ()
    """(output embedding, input embedding) that the config ties and that are two tensors."""
    overlapping: tuple[tuple[str, str], ...] = ()
    """(trainable parameter, other parameter) that are two tensors on the same memory. A parameter may overlap itself."""
    nonfinite: tuple[str, ...] = ()
    """Parameters that hold NaN or infinity, and buffers that hold NaN. Of a large matrix of the base, some rows are read."""
    empty: tuple[str, ...] = ()
    """Trainable parameters without elements."""
    adapter_levels: int = 0
    """How many times PEFT wraps the model. More than one means that adapters were attached to an adapted model."""
    quantizer_trains: bool | None = None
    """Whether the quantizer that loaded the model supports training. None if there is no quantizer or it gives no answer."""
    device_map: tuple[str, ...] = ()
    """The devices over which accelerate spread the modules, as the model records them. Empty if it did not."""
    packed_banks: tuple[QuantizedFacts, ...] = ()
    """Fused experts that are packed in place; each path is that of the parameter."""
    unread: tuple[tuple[str, str], ...] = ()
    """(path, reason) for each module, (class and attribute, reason) for each attribute, that raises when it is read."""

    @property
    def trainable(self) -> tuple[ParameterFacts, ...]:
        """Return the parameters that require grad."""
        return tuple(parameter for parameter in self.parameters if parameter.requires_grad)

    @property
    def checkpointing(self) -> tuple[LayerCheckpointing, ...]:
        """Return the modules whose checkpointing is on."""
        return tuple(facts for facts in self.checkpoints if facts.enabled)

    def by_layer(self) -> dict[str, list[ParameterFacts]]:
        """Return the parameters by their outermost checkpointable layer; the others are under the empty path.

        These are the units that FSDP shards if it wraps by transformer layer, the default of accelerate.
        """
        layers = {facts.path for facts in self.checkpoints if facts.is_layer}
        units: dict[str, list[ParameterFacts]] = {}
        for parameter in self.parameters:
            parts = parameter.path.split(".")
            heads = (".".join(parts[:end]) for end in range(1, len(parts)))
            units.setdefault(next((head for head in heads if head in layers), ""), []).append(parameter)
        return units

    @property
    def numel(self) -> int:
        """Return the number of parameters before packing, without adapters."""
        known = {facts.path for facts in (*self.quantized, *self.packed_banks) if facts.packing.features}
        return self._packed_numel + sum(
            parameter.numel
            for parameter in self.parameters
            if not parameter.adapter and not (parameter.packed and not known.isdisjoint((parameter.module, parameter.path)))
        )

    @property
    def _packed_numel(self) -> int:
        features = [facts.packing.features for facts in (*self.quantized, *self.packed_banks)]
        return sum(fan_in * fan_out for fan_in, fan_out in filter(None, features))

    @property
    def quantized_share(self) -> float:
        """Return the packed share of the base model's parameters, from 0 to 1, of layers that record their features."""
        return self._packed_numel / (self.numel or 1)

    @property
    def unpacked(self) -> tuple[ParameterFacts, ...]:
        """Return the base model's floating-point matrices: neither packed, nor a norm, nor a vector."""
        return tuple(p for p in self.parameters if p.floating and len(p.shape) > 1 and not (p.adapter or p.packed or p.norm))

    @property
    def on_meta(self) -> bool:
        """Return whether any parameter is on the meta device."""
        return any(parameter.device == "meta" for parameter in self.parameters)

    def summary(self) -> str:
        """Return the model in one line: class, size, quantization, adapters."""
        parts = [f"{self.class_name} {short_count(self.numel)}"]
        for (method, kind), count in sorted(Counter((q.packing.method, q.packing.kind) for q in self.quantized).items()):
            name = method if method == kind else f"{method} {kind}"
            parts.append(f"{name} on {count} layer{'s' * (count != 1)}")
        if self.packed_banks:
            kinds = " and ".join(sorted({bank.packing.kind for bank in self.packed_banks}))
            parts.append(f"{kinds} on {len(self.packed_banks)} fused expert{'s' * (len(self.packed_banks) != 1)}")
        if not self.quantized:
            parts.append("not quantized")
        elif any(parameter.bank and not parameter.adapter for parameter in self.parameters):
            parts.append(f"{self.quantized_share:.0%} of the parameters")
        for adapter in self.adapters:
            rank = f" r={adapter.rank}" if adapter.rank else ""
            where = f" on {self.adapter_layers} layer{'s' * (self.adapter_layers != 1)}" if self.adapter_layers else ""
            parts.append(f"{adapter.kind.replace('_', ' ').lower().replace('lora', 'LoRA')}{rank}{where}")
        covered = coverage_of(self)
        parts += [] if covered is None else [str(covered)]
        return ", ".join(parts)
