"""Quantization methods, one row each: how to request a method, how to recognize it, and how it trains.

Every other table of methods is a view of these rows. A new method of transformers is one row and its test. Source of
the columns: transformers 5.23 (transformers/quantizers, transformers/utils/quantization_config.py) and PEFT 0.21.
"""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import Any

from kbitlint.lazy_dataclass import dataclass


@dataclass(frozen=True, slots=True)
class Layer:
    """A class of quantized layers."""

    name: str
    """The class name. ``Name*`` or ``*Name`` if a library has several classes with a common prefix or suffix."""
    bits: int | None
    """Bits of a weight; None if the class name alone does not determine them."""
    kind: str
    """The data type in the spelling of reports; empty if the layer's tensors determine it."""
    package: str = ""
    """The package of the class, if another library has layers of the same name; else empty."""


@dataclass(frozen=True, slots=True)
class Method:
    """A quantization method of transformers, named as in ``quant_method`` of config.json."""

    name: str
    config: str = ""
    """The config class of transformers that requests the method; empty if there is none."""
    arguments: tuple[str, ...] = ()
    """The arguments of the config class. It ignores others through ``**kwargs``. Empty if they are not known."""
    layers: tuple[Layer, ...] = ()
    inference_kernels: tuple[str, ...] = ()
    """Prefixes of the names of kernels without a backward. An attribute of GPTQModel's layer takes precedence."""
    tensors: str = ""
    """A pattern of tensor names that only this method stores; empty if there is none."""
    hub_name: str = ""
    """A pattern in the names of published checkpoints of this method; empty if there is none."""
    trains: bool = True
    """Whether ``HfQuantizer.is_trainable`` is True for all arguments."""
    trains_with: tuple[tuple[str, object], ...] = ()
    """The arguments with which the method trains, each with its value; empty if no argument decides."""
    fails_with: tuple[str, object] | None = None
    """The argument and the value with which the method does not train on a GPU that has its kernel; None if there is none."""
    falls_back: bool = False
    """Whether transformers dequantizes the checkpoint where no kernel for it is at hand, so that it trains as a plain model."""
    prepared: bool = False
    """Whether ``prepare_model_for_kbit_training`` of PEFT recognizes the layers and enables checkpointing."""
    refuses_bare: bool = False
    """Whether Trainer rejects the model without adapters, since it stays quantized on every device."""
    refuses_casts: bool = False
    """Whether a packed tensor reports a float dtype and raises if PEFT's prepare function casts it."""
    neutral: tuple[tuple[str, object], ...] = ()
    """Arguments of earlier versions, each with the value that the method has without them: dropping these changes nothing."""
    keeps_input: bool = False
    """Whether its layers multiply their input as it is, in their ``compute_dtype``. Another dtype of the input raises."""
    cuts: bool = False
    """Whether a layer that does not train gives an output without a graph. Others raise in the backward pass."""
    takes_attributes: bool = False
    """Whether a passed config is merged into a stored one (LOADING_ATTRIBUTES_CONFIG_TYPES)."""
    instead: str = 'load with backend="auto_trainable"'
    """The remedy for a layer without a backward."""


_GPTQ = (
    *("bits", "tokenizer", "dataset", "group_size", "damp_percent", "desc_act", "act_group_aware", "sym", "true_sequential"),
    *("format", "meta", "backend", "model_seqlen", "block_name_to_quantize", "module_name_preceding_first_block"),
    *("batch_size", "pad_token_id", "max_input_length", "cache_block_outputs", "modules_in_block_to_quantize"),
    "checkpoint_format",
)

METHODS: tuple[Method, ...] = (
    Method(
        "bitsandbytes",
        "BitsAndBytesConfig",
        (
            *("load_in_8bit", "load_in_4bit", "llm_int8_threshold", "llm_int8_skip_modules"),
            *("llm_int8_enable_fp32_cpu_offload", "llm_int8_has_fp16_weight", "bnb_4bit_compute_dtype"),
            *("bnb_4bit_quant_type", "bnb_4bit_use_double_quant", "bnb_4bit_quant_storage"),
        ),
        (Layer("Linear4bit", 4, ""), Layer("Linear8bitLt", 8, "int8")),
        hub_name="bnb",
        prepared=True,
        refuses_bare=True,
    ),
    Method(
        "gptq",
        "GPTQConfig",
        _GPTQ,
        (Layer("*QuantLinear", None, "gptq"),),
        inference_kernels=("Exllama", "ExLlama", "Marlin", "Machete", "BitBLAS", "QBits"),
        tensors=r"\.(qweight|g_idx)$",
        hub_name="gptq",
        prepared=True,
        refuses_bare=True,
        takes_attributes=True,
    ),
    Method(
        "awq",
        "AwqConfig",
        (*_GPTQ, "zero_point", "modules_to_not_convert", "version"),
        (Layer("WQLinear*", None, "awq"),),
        neutral=(("do_fuse", False),),
        inference_kernels=("WQLinear_GEMV", "WQLinear_Exllama", "WQLinear_Marlin"),
        hub_name="awq",
        refuses_bare=True,
        takes_attributes=True,
    ),
    Method(
        "hqq",
        "HqqConfig",
        ("nbits", "group_size", "view_as_float", "axis", "dynamic_config", "skip_modules"),
        (Layer("HQQLinear", None, "hqq"),),
        hub_name="hqq",
        # hqq/core/quantize.py, the defaults of BaseQuantizeConfig
        neutral=(("quant_zero", False), ("quant_scale", False), ("offload_meta", False)),
        prepared=True,
        refuses_bare=True,
        keeps_input=True,  # verified by execution with hqq 0.2.8
    ),
    Method(
        "quanto",
        "QuantoConfig",
        ("weights", "activations", "modules_to_not_convert"),
        (Layer("QLinear", None, "quanto"), Layer("QConv2d", None, "quanto")),
        refuses_bare=True,
        refuses_casts=True,  # verified by execution with optimum-quanto 0.2.7
    ),
    Method(
        "eetq",
        "EetqConfig",
        ("weights", "modules_to_not_convert"),
        (Layer("EetqLinear", 8, "int8"),),
        prepared=True,
        refuses_bare=True,
    ),
    Method(
        "aqlm", "AqlmConfig", layers=(Layer("QuantizedLinear", 2, "aqlm"),), hub_name="aqlm", prepared=True, refuses_bare=True
    ),
    Method(
        "torchao",  # its layers are ordinary layers with packed tensors
        "TorchAoConfig",
        ("quant_type", "modules_to_not_convert", "include_input_output_embeddings", "untie_embedding_weights"),
        prepared=True,
        refuses_bare=True,
        cuts=True,
        instead="load with a type that quantizes weights only",
    ),
    Method(
        "mxfp4",
        "Mxfp4Config",
        ("modules_to_not_convert", "dequantize"),
        (Layer("Mxfp4GptOssExperts", 4, "mxfp4"),),
        tensors=r"_(blocks|scales)$",
        trains=False,
        falls_back=True,
        takes_attributes=True,
    ),
    Method(
        "fbgemm_fp8",
        "FbgemmFp8Config",
        layers=(Layer("FbgemmFp8Linear", 8, "fp8"), Layer("FbgemmFp8Llama4TextExperts", 8, "fp8")),
        trains=False,
        takes_attributes=True,
    ),
    Method(
        "compressed-tensors",
        "CompressedTensorsConfig",
        layers=(Layer("CompressedLinear", None, "compressed"), Layer("CompressedTensorsFP8Linear", 8, "fp8")),
        tensors=r"\.weight_packed$",
        fails_with=("use_optimized_inference", True),
        cuts=True,  # verified by execution with compressed-tensors 0.20
        instead="load a checkpoint that quantizes weights only",
        takes_attributes=True,
    ),
    Method("higgs", "HiggsConfig", layers=(Layer("HiggsLinear", None, "higgs"),), trains=False, refuses_bare=True),
    Method("vptq", "VptqConfig", layers=(Layer("VQuantLinear", None, "vptq"),), trains=False, refuses_bare=True),
    Method(
        "fp8",
        "FineGrainedFP8Config",
        layers=(Layer("FP8Linear", 8, "fp8"), Layer("FP8Experts", 8, "fp8")),
        tensors=r"\.weight_scale(_inv)?$",
        takes_attributes=True,
    ),
    Method("quark", "QuarkConfig", layers=(Layer("*Linear*", None, "quark", package="quark"),), trains=False),
    Method("auto-round", "AutoRoundConfig", trains=False),
    Method(
        "fp_quant", "FPQuantConfig", layers=(Layer("FPQuantLinear", 4, "fp4"),), trains_with=(("store_master_weights", True),)
    ),
    Method(
        "bitnet",
        "BitNetQuantConfig",
        layers=(Layer("BitLinear", 2, "ternary"), Layer("AutoBitLinear", 2, "ternary")),
        hub_name="bitnet",
        trains_with=(("linear_class", "autobitlinear"), ("quantization_mode", "online")),
    ),
    Method(
        "spqr", "SpQRConfig", layers=(Layer("*Linear*", None, "spqr", package="spqr_quant"),), trains=False, refuses_bare=True
    ),
    Method("nvfp4", "NVFP4Config", layers=(Layer("NVFP4Linear", 4, "nvfp4"),), trains=False),
    Method("fouroversix", "FourOverSixConfig", trains_with=(("keep_master_weights", True),)),
    Method("sinq", "SinqConfig", layers=(Layer("SINQLinear", None, "sinq"),)),
    Method("metal", "MetalConfig", layers=(Layer("MetalLinear", None, "metal"),), trains=False, falls_back=True),
    # unknown to transformers 5.23, which warns, skips the quantization and finds none of the weights
    Method("exl2", trains=False, hub_name="exl2"),
    Method("exl3", trains=False, hub_name="exl3"),
    Method("modelopt", trains=False),
    Method("mxfp8", layers=(), takes_attributes=True),  # loaded as fp8, with its layer classes
    Method(
        "gguf",
        "GgufConfig",
        ("gguf_file", "dequantize"),
        (Layer("Gguf*", None, "gguf"),),
        trains=False,
        falls_back=True,
        hub_name="gguf",
    ),
    Method(
        "gemma",
        "GemmaQuantizationConfig",
        layers=(Layer("*Linear*", None, "gemma", package="transformers.integrations.gemma_quant"),),
        trains=False,
    ),
)

_BY_NAME = {method.name: method for method in METHODS}
_UNKNOWN = Method("")
#: config class of transformers -> its method
QUANTIZATION_CONFIGS = {method.config: method.name for method in METHODS if method.config}
#: config class of transformers -> its arguments
QUANTIZATION_ARGUMENTS = {method.config: method.arguments for method in METHODS if method.arguments}
#: (config class, argument, value) of dropped arguments that change nothing
NEUTRAL = frozenset((method.config, *pair) for method in METHODS for pair in method.neutral)
#: model types whose linear layers are a subclass of ``nn.Linear``: transformers 5 converts the class itself only
OWN_LINEARS = frozenset({"falcon"})
#: methods whose layers PEFT's prepare function recognizes
PREPARED_METHODS = frozenset(method.name for method in METHODS if method.prepared)
#: prefixes of the names of kernels without a backward
INFERENCE_KERNELS = tuple(start for method in METHODS for start in method.inference_kernels)

#: quantizations of an unquantized checkpoint on load: the values of ``--quantize``
_OPTIONS = ("", "-double", "-bf16", "-double-bf16")
QUANTIZATIONS = (*(f"{kind}{options}" for kind in ("nf4", "fp4") for options in _OPTIONS), "int8", "none")


def four_bit_arguments(name: str) -> dict[str, Any]:
    """Return the arguments of ``BitsAndBytesConfig`` for a 4-bit value of ``--quantize``.

    ``-double`` quantizes the scales too. ``-bf16`` stores the packed weights as bfloat16, which FSDP can shard.
    """
    kind, *options = name.split("-")
    arguments = {"load_in_4bit": True, "bnb_4bit_quant_type": kind, "bnb_4bit_use_double_quant": "double" in options}
    return arguments | ({"bnb_4bit_quant_storage": "bfloat16"} if "bf16" in options else {})


#: (method, layer): rows with a package first, then exact names, then patterns
_LAYERS = sorted(
    ((method.name, layer) for method in METHODS for layer in method.layers),
    key=lambda row: (not row[1].package, "*" in row[1].name),
)


def method_named(name: object) -> Method:
    """Return the row of a method; for an unknown name a row of defaults."""
    return _BY_NAME.get(name, _UNKNOWN) if isinstance(name, str) else _UNKNOWN


def layer_of(package: str, name: str) -> tuple[str, int | None, str] | None:
    """Return (method, bits, kind) of a layer class; None if no quantization library defines it.

    Args:
        package: The module that defines the class.
        name: The name of the class.
    """
    if package.startswith("transformers.models."):  # I-BERT simulates integers in a QuantLinear of its own
        return None
    for method, layer in _LAYERS:
        if package.startswith(layer.package) and fnmatchcase(name, layer.name):
            return method, layer.bits, layer.kind
    return None
