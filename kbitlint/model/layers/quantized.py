"""Recognition of quantized layers, for each method that transformers can load.

Class names and the tensors themselves decide. No quantization library is imported for a model that does not use it. The import
of bitsandbytes costs about as much as that of torch.
"""

from __future__ import annotations

import functools
import re
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from kbitlint.facts.layers import LinearFacts, Packing, UnpackedLayerFacts, short_name
from kbitlint.model.attributes import attribute
from kbitlint.runtime.patterns import matches
from kbitlint.upstream.quantization import INFERENCE_KERNELS, layer_of, method_named

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

#: The attribute of a module in a copy without weights that holds the packing of its original.
TOLD = "kbitlint_packing"


def packing_of(module: nn.Module) -> Packing | None:
    """Return how the module's own weight is packed, or None for an ordinary weight."""
    told = module.__dict__.get(TOLD)
    if told is not None:
        return told  # type: ignore[no-any-return]  # a Packing
    cls: Any = type(module)
    if issubclass(cls, torch.jit.ScriptModule):  # a program, whose tensors are in no dictionary
        return None
    method, bits, kind = _method_of(cls)
    if method == "bitsandbytes":
        return _bitsandbytes_4bit(module) if bits == 4 else _bitsandbytes_8bit(module)
    if method:
        bits = bits or attribute(module, "w_bit") or attribute(module, "bits")
        compute = attribute(module, "compute_dtype") if method_named(method).keeps_input else None
        computes_in = None if compute is None else short_name(compute)
        return Packing(method, bits, kind, computes_in, features=_features(module), trains=_trains(cls))
    scheme = module.__dict__.get("quantization_scheme")
    if type(scheme).__module__.startswith("compressed_tensors"):
        return _compressed(module, scheme)
    weight = module._parameters.get("weight")  # noqa: SLF001  # one dictionary read instead of a property chain
    if weight is not None and type(weight.data).__module__.startswith("torchao"):
        return _torchao(module, weight.data)
    return None


def _torchao(module: nn.Module, weight: Any) -> Packing:
    """Return the packing of an ordinary Linear whose weight torchao packs: Int8Tensor, Float8Tensor, Int4TilePackedTo4dTensor.

    Types that also quantize activations compute in integers. Their product has no backward, so their output does not require
    grad (torchao 0.18). transformers' quantizer nevertheless reports that every 8-bit type trains.
    """
    kind = type(weight).__name__
    bits = re.search(r"\d+", str(attribute(weight, "target_dtype") or kind))  # integers of few bits may lie in bytes
    dynamic = any(attribute(weight, name) is not None for name in ("act_quant_kwargs", "activation_quantization"))
    return Packing(
        "torchao", int(bits.group()) if bits else None, kind, features=_features(module), trains=False if dynamic else None
    )


def _compressed(module: nn.Module, scheme: Any) -> Packing | None:
    """Return the packing of an ordinary Linear with a scheme of compressed-tensors, or None if it quantizes no weight.

    compressed-tensors 0.20 rounds activations without a graph (``fake_quantize``), so nothing behind it requires grad.
    """
    weights = attribute(scheme, "weights")
    if weights is None:
        return None
    rounded = any(attribute(scheme, name) is not None for name in ("input_activations", "output_activations"))
    bits, kind = attribute(weights, "num_bits"), str(attribute(weights, "type") or "")
    name = f"{kind.rpartition('.')[2].lower()}{bits}"
    return Packing("compressed-tensors", bits, name, features=_features(module), trains=False if rounded else None)


def packed_class(cls: Any) -> int | None:
    """Return the bits to which a bitsandbytes layer class packs its weight, or None for every other class."""
    method, bits, _ = _method_of(cls)
    return bits if method == "bitsandbytes" else None


def _trains(cls: Any) -> bool | None:
    """Return whether a gradient passes the layer, or None if the class does not define it."""
    said = attribute(cls, "SUPPORTS_TRAINING")
    if isinstance(said, bool):
        return said
    return False if any(base.__name__.startswith(INFERENCE_KERNELS) for base in cls.__mro__) else None


@functools.lru_cache(maxsize=4096)
def _method_of(cls: Any) -> tuple[str, int | None, str]:
    """Return (method, bits, kind) of a layer class. The method is empty if no quantization library defines the class."""
    if cls.__module__.startswith("peft."):  # PEFT names its wrappers after their layers: lora.bnb.Linear4bit
        return ("", None, "")
    found = (layer_of(base.__module__, base.__name__) for base in cls.__mro__)
    return next(filter(None, found), ("", None, ""))


def _features(module: nn.Module) -> tuple[int, int] | None:
    """Return the (in, out) features of a layer, or None if they are unknown."""
    own = module.__dict__  # a read of the dictionary: attribute access on a module raises and catches errors inside
    incoming = own["in_features"] if "in_features" in own else attribute(module, "infeatures")
    outgoing = own["out_features"] if "out_features" in own else attribute(module, "outfeatures")
    if incoming is None:
        incoming, outgoing = attribute(module, "in_features"), attribute(module, "out_features")
    return (incoming, outgoing) if isinstance(incoming, int) and isinstance(outgoing, int) else None


def state_bytes(module: nn.Module, packing: Packing) -> int:
    """Return the bytes that a quantized layer holds outside its parameters and buffers, besides its packed weight.

    bitsandbytes holds a float32 maximum for each block of a 4-bit weight. Double quantization stores it in one byte, with a
    float32 for each 256 of them (QLoRA, section 3). In 8 bits it holds a float32 for each row. Other methods register such
    tensors as buffers.
    """
    if packing.method != "bitsandbytes" or packing.features is None:
        return 0
    fan_in, fan_out = packing.features
    if packing.bits == 8:
        return 4 * fan_out
    weight = module._parameters.get("weight")  # noqa: SLF001  # see packing_of
    blocks = -(-fan_in * fan_out // (attribute(weight, "blocksize") or 64))
    code = 16 * 4
    return code + (blocks + -(-blocks // 256) * 4 + 256 * 4 + 4 if attribute(weight, "compress_statistics") else 4 * blocks)


def has_data(weight: Any) -> bool:
    """Return whether a value is a tensor with data.

    bitsandbytes answers each question to its weights in Python, which is not asked here: a walk asks for every layer.
    """
    with torch._C.DisableTorchFunctionSubclass():  # noqa: SLF001  # torch has no public name for it
        return isinstance(weight, Tensor) and not weight.is_meta


def lost_state(module: nn.Module, packing: Packing) -> str:
    """Return the name of the state that a bitsandbytes layer lacks to unpack its weight. It is empty if none is missing.

    The forward of bitsandbytes 0.50 reads the weight and then the layer (``fix_4bit_weight_quant_state_from_module``,
    ``MatmulLtState``). The weight has data: one without has no state yet.
    """
    if packing.method != "bitsandbytes" or TOLD in module.__dict__:
        return ""
    weight: Any = attribute(module, "weight")
    name, holder = ("quant_state", module) if packing.bits == 4 else ("SCB", attribute(module, "state"))
    return name if attribute(weight, name) is None and attribute(holder, name) is None else ""


def _bitsandbytes_4bit(module: nn.Module) -> Packing | None:
    weight = module._parameters.get("weight")  # noqa: SLF001  # see packing_of
    if weight is None:
        weight = attribute(module, "weight")
    # FSDP2 stores a DTensor instead of a Params4bit
    state = attribute(module, "quant_state") if type(weight).__name__ == "DTensor" else None
    known = attribute(weight, "bnb_quantized") or state is not None
    packed = isinstance(weight, Tensor) and (known or not weight.is_floating_point())
    if not packed:  # a tied or never loaded weight: the class is quantized, the tensor is not
        return None
    compute = attribute(module, "compute_dtype")
    return _four_bits(
        str(attribute(weight, "quant_type", "") or attribute(state, "quant_type", "4-bit")),
        None if compute is None else short_name(compute),
        _features(module),
        bool(attribute(weight, "compress_statistics")),
    )


@functools.lru_cache(maxsize=1024)
def _four_bits(kind: str, compute_dtype: str | None, features: tuple[int, int] | None, double: bool) -> Packing:  # noqa: FBT001  # a key
    """Return a cached Packing. A model has thousands of layers and few distinct packings."""
    return Packing("bitsandbytes", 4, kind, compute_dtype, features, double=double)


def _bitsandbytes_8bit(module: nn.Module) -> Packing | None:
    weight = attribute(module, "weight")
    if not isinstance(weight, Tensor) or weight.is_floating_point():  # has_fp16_weights leaves the weight in 16 bits
        return None
    return Packing("bitsandbytes", 8, "int8", features=_features(module))


def hollow(module: nn.Module, path: str) -> Iterator[UnpackedLayerFacts]:
    """Yield the facts of the module if its class packs a weight and its weight is not packed."""
    bits, weight = packed_class(type(module)), module._parameters.get("weight")  # noqa: SLF001  # one dictionary read
    if bits is not None and weight is not None:
        kind = type(weight).__name__
        keeps = attribute(attribute(module, "state"), "has_fp16_weights") is True  # pickled, its weight is a plain parameter
        foreign = kind not in ("Params4bit", "Int8Params") and not keeps
        yield UnpackedLayerFacts(path, type(module).__name__, bits, short_name(weight.dtype), kind == "Params4bit", foreign)


def unconverted(base: Any, linears: Iterable[tuple[str, nn.Module]]) -> tuple[LinearFacts, ...] | None:
    """Return the plain Linears of a model that bitsandbytes should have replaced.

    None means that the model has no list of the modules to leave out. Keys of the list are patterns (``should_convert_module``
    of transformers). Here a key anywhere in the path counts as a match. A layer is thus reported only if every version of
    transformers would convert it.
    """
    keys = attribute(attribute(base, "hf_quantizer"), "modules_to_not_convert")
    if keys is None:
        return None
    return tuple(
        LinearFacts(path, type(module).__name__, short_name(module.weight.dtype), int(module.weight.numel()))
        for path, module in linears
        if not any(key in path or matches(key, path) is not False for key in map(str, keys))
    )


def quantizer_trains(base: Any) -> bool | None:
    """Return whether the quantizer that loaded the model supports training.

    None means that the model has no quantizer, or one that raised.
    """
    try:
        found = base.hf_quantizer.is_trainable
    except Exception:  # noqa: BLE001  # some read the version of a package that is not installed
        return None
    return found if isinstance(found, bool) else None


def method_of(config: Any) -> str | None:
    """Return the method that a quantization config (an object or a dictionary) names, or None if it names none."""
    value = config.get("quant_method") if isinstance(config, dict) else getattr(config, "quant_method", None)
    return None if value is None else str(getattr(value, "value", value))
