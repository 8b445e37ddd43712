"""What one walk over a model saw, as data: rules read this and never walk the model themselves.

Facts hold no tensor and no module: dtypes and devices are strings, places are dotted paths of the user's own model
(below PEFT's, DDP's and torch.compile's wrappers). ``kbitlint.model.inspect.walk`` collects them.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kbitlint.facts.layers import AdapterFacts, GradientFeed, LayerCheckpointing, Packing

LOW_PRECISION = ("float16", "bfloat16")


@dataclass(frozen=True, slots=True)
class ParameterFacts:
    """One parameter; a tied one is listed once, under its first path."""

    path: str
    module: str
    dtype: str
    shape: tuple[int, ...]
    numel: int
    nbytes: int
    requires_grad: bool
    device: str
    adapter: bool
    """Whether an adapter or another wrapper added it; the base model's own otherwise."""
    adapter_name: str
    """The name of the PEFT adapter it belongs to; empty where it belongs to none."""
    outside: bool
    """Whether it stands outside the base model, in a wrapper around it."""
    packed: bool
    """Whether it is the weight of a quantized layer."""
    norm: bool
    floating: bool
    bank: bool = False
    """Whether it stacks the matrices of several experts."""
    held: bool = False
    """Whether hooks let its module compute in float32 whatever comes in, so that its dtype is meant."""
    inference: bool = False
    """Whether it was created under ``torch.inference_mode``, so that nothing may write into it outside of that."""


@dataclass(frozen=True, slots=True)
class NormFacts:
    """One normalisation layer with parameters of its own, or one bare parameter that acts as a norm's weight."""

    path: str
    class_name: str
    dtypes: tuple[tuple[str, str], ...]
    """(parameter or buffer name, dtype) of its own floating tensors."""
    nbytes: int
    """Bytes of those of its own tensors that are half precision: what casting them to float32 adds."""
    bare: bool
    output_dtype: str | None
    """The dtype that must come out where float32 comes in: the code reads it from the norm's weight. Else None."""
    adapter: bool
    transparent: bool = False
    """Whether hooks let it give back the dtype that comes in, whatever the dtype of its weight."""

    @property
    def promotes(self) -> bool:
        """Whether it is one of the base model's whose float32 weight may turn half-precision input into float32."""
        wide = all(dtype == "float32" for _, dtype in self.dtypes)
        return wide and not (self.bare or self.adapter or self.transparent)


@dataclass(frozen=True, slots=True)
class QuantizedFacts:
    """One quantized layer."""

    path: str
    packing: Packing
    lacks: str = ""
    """The attribute that unpacks a bitsandbytes weight and is None: ``quant_state`` or ``SCB``; else empty."""


@dataclass(frozen=True, slots=True)
class UnpackedLayerFacts:
    """A layer of a quantizing class whose weight is an ordinary float tensor."""

    path: str
    class_name: str
    bits: int
    dtype: str
    pending: bool
    """Whether the weight is one that packs itself as soon as it is moved to a device."""


@dataclass(frozen=True, slots=True)
class LinearFacts:
    """A Linear of a quantized model that is not packed although nothing says that it should be left out."""

    path: str
    class_name: str
    dtype: str
    numel: int


@dataclass(frozen=True, slots=True)
class HeadFacts:
    """What makes the model's last output: the output embedding of a language model, or the head of a task."""

    path: str
    task: str
    """The task that the class names (``SequenceClassification``); empty for an output embedding."""


@dataclass(frozen=True, slots=True)
class TowerFacts:
    """A model within the model that reads something else than text."""

    path: str
    class_name: str
    reads: str
    """The name of its main input: ``pixel_values``, ``input_features``, ..."""


@dataclass(frozen=True, slots=True)
class AdaptedFacts:
    """One layer of the base model that PEFT put an adapter on."""

    path: str
    merged: bool
    """Whether the adapter is added into the layer's weight at the moment."""


@dataclass(frozen=True, slots=True)
class EmbeddingFacts:
    """The input embedding of one transformers model in the tree, as its ``get_input_embeddings`` gives it."""

    path: str
    owner: str
    """The path of the model whose input embedding it is."""
    hookable: bool
    """Whether a forward hook on it ever runs (on a ModuleList it does not)."""


@dataclass(frozen=True, slots=True)
class InputGradHooks:
    """Forward hooks of one module that make its output require grad."""

    path: str
    names: tuple[str, ...]
    orphans: int
    """How many of them ``disable_input_require_grads()`` would leave in place."""


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """What one walk over a model saw."""

    class_name: str
    model_type: str
    parameters: tuple[ParameterFacts, ...]
    norms: tuple[NormFacts, ...]
    quantized: tuple[QuantizedFacts, ...]
    embeddings: tuple[EmbeddingFacts, ...]
    input_grad_hooks: tuple[InputGradHooks, ...]
    checkpoints: tuple[LayerCheckpointing, ...]
    models: tuple[str, ...]
    """Paths of every transformers model in the tree; the base itself is the empty path."""
    adapters: tuple[AdapterFacts, ...]
    adapter_layers: int
    has_adapters: bool
    """Whether anything was added to the base model: by PEFT, by another library or by a wrapper."""
    claims_quantization: str | None
    """The quantization method that the model's own records name."""
    supports_checkpointing: bool
    use_cache: tuple[str, ...]
    """Which configs have ``use_cache`` on: ``config``, ``config.text_config``, ..."""
    training: bool
    adapter_training: bool | None
    """Whether any module that PEFT added is in training mode; None where there are none. (PEFT copies some modules
    together with their mode, so one in eval mode says nothing.)"""
    bypassed: str | None
    """Why no adapter takes part in the forward pass: ``disabled`` or ``merged``; None where they do."""
    compiled: bool
    """Whether torch.compile wraps the model or a part of it, and so decides how its checkpoints run."""
    feeds: tuple[GradientFeed, ...] = ()
    """What feeds each stack of checkpointed layers with a gradient."""
    tied: tuple[tuple[str, str], ...] = ()
    """(path, first path) of every further path of a tied parameter."""
    dtype: str | None = None
    """The dtype that the config records: that of the checkpoint, or the one that was asked for at loading."""
    keeps_float32: tuple[str, ...] = ()
    """Names of modules whose weights the class keeps in float32 by design."""
    hollow: tuple[UnpackedLayerFacts, ...] = ()
    unconverted: tuple[LinearFacts, ...] | None = ()
    """None where it is not recorded which layers were to be left out."""
    offloaded: tuple[str, ...] = ()
    """Modules whose weights accelerate brings from the CPU or the disk for each call."""
    heads: tuple[HeadFacts, ...] = ()
    towers: tuple[TowerFacts, ...] = ()
    adapted: tuple[AdaptedFacts, ...] = ()
    dead_targets: tuple[tuple[str, str], ...] = ()
    """(adapter, name) of every entry of ``target_modules`` that no module is called."""
    quantizer_trains: bool | None = None
    """Whether the quantizer that loaded the model supports training; None where none is attached."""
    device_map: tuple[str, ...] = ()
    """The devices that accelerate spread the modules over, as the model remembers them; empty where it was not."""
    packed_banks: tuple[QuantizedFacts, ...] = ()
    """Fused experts that are packed in place; the path is that of the parameter."""
    unread: tuple[tuple[str, str], ...] = ()
    """(path, reason) of every module that could not be looked at as a whole, (class and attribute, reason) of every
    attribute: reading it raises."""

    @property
    def trainable(self) -> tuple[ParameterFacts, ...]:
        """The parameters that require grad."""
        return tuple(parameter for parameter in self.parameters if parameter.requires_grad)

    @property
    def checkpointing(self) -> tuple[LayerCheckpointing, ...]:
        """The modules whose checkpointing is on."""
        return tuple(facts for facts in self.checkpoints if facts.enabled)

    def by_layer(self) -> dict[str, list[ParameterFacts]]:
        """Parameters by the outermost checkpointable layer that holds them; the rest stands under the empty path.

        These are the units that FSDP shards where it wraps by transformer layer, as accelerate does by default.
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
        """Parameters before packing, without adapters."""
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
        """Which part of the base model's parameters is packed, as far as layers say how many they hold: 0 to 1."""
        return self._packed_numel / (self.numel or 1)

    @property
    def unpacked(self) -> tuple[ParameterFacts, ...]:
        """The base model's own float matrices: what is neither packed, nor a norm, nor a vector."""
        return tuple(p for p in self.parameters if p.floating and len(p.shape) > 1 and not (p.adapter or p.packed or p.norm))

    @property
    def on_meta(self) -> bool:
        """Whether the model has no weights."""
        return any(parameter.device == "meta" for parameter in self.parameters)

    def summary(self) -> str:
        """The model in one line: class, size, quantization, adapters."""
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
        return ", ".join(parts)


def short_count(number: int) -> str:
    """Return a number in three digits and a unit: ``1.1B``."""
    for limit, unit in ((10**12, "T"), (10**9, "B"), (10**6, "M"), (10**3, "K")):
        if number >= limit:
            return f"{number / limit:.1f}{unit}"
    return str(number)
