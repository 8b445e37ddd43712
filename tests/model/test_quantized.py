"""What is a quantized layer, per method; the classes of packages that are not installed are stood in for by name."""

from __future__ import annotations

import types
from typing import ClassVar

import pytest
import tiny
import torch
from diffusion import quantized
from peft import LoraConfig, get_peft_model
from torch import nn

import kbitlint
from kbitlint.context import TrainingContext
from kbitlint.facts.layers import Packing
from kbitlint.model.inspect.walk import collect
from kbitlint.model.layers.quantized import packing_of


def layer(name, package="kernels", **attributes):
    """A layer of a class with this name, as its package would make it."""
    said = {key: attributes[key] for key in attributes if key.isupper()}
    made = type(name, (nn.Module,), {"__module__": package, **said})()
    for key, value in {"in_features": 8, "out_features": 4, **attributes}.items():
        setattr(made, key, value)
    return made


@pytest.mark.parametrize(
    ("module", "packing"),
    [
        (layer("TorchQuantLinear", bits=4), Packing("gptq", 4, "gptq", features=(8, 4))),
        (layer("WQLinear_GEMM", w_bit=4), Packing("awq", 4, "awq", features=(8, 4))),
        (layer("HQQLinear"), Packing("hqq", None, "hqq", features=(8, 4))),
        (layer("HQQLinear", compute_dtype=torch.float16), Packing("hqq", None, "hqq", "float16", features=(8, 4))),
        (layer("EetqLinear"), Packing("eetq", 8, "int8", features=(8, 4))),
        (layer("GgufLinear"), Packing("gguf", None, "gguf", features=(8, 4))),
        (layer("FP8Linear"), Packing("fp8", 8, "fp8", features=(8, 4))),
        (layer("QLinear"), Packing("quanto", None, "quanto", features=(8, 4))),
        (layer("Mxfp4GptOssExperts", in_features=None), Packing("mxfp4", 4, "mxfp4")),
        (layer("FPQuantLinear"), Packing("fp_quant", 4, "fp4", features=(8, 4))),
        (layer("QuantizedLinear"), Packing("aqlm", 2, "aqlm", features=(8, 4))),
        (layer("QuantizedLinear", package="spqr_quant.inference"), Packing("spqr", None, "spqr", features=(8, 4))),
        (layer("QuantLinear", package="quark.torch.nn"), Packing("quark", None, "quark", features=(8, 4))),
        (layer("MarlinQuantLinear", bits=4), Packing("gptq", 4, "gptq", features=(8, 4), trains=False)),
        (layer("WQLinear_GEMVFast", w_bit=4), Packing("awq", 4, "awq", features=(8, 4), trains=False)),
        (layer("TritonQuantLinear", bits=4, SUPPORTS_TRAINING=True), Packing("gptq", 4, "gptq", features=(8, 4), trains=True)),
        (nn.Linear(8, 4), None),
        (nn.LayerNorm(4), None),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else "",
)
def test_layers_are_recognised_by_the_class_that_their_package_gives_them(module, packing):
    assert packing_of(module) == packing


def test_a_class_of_a_model_is_no_layer_of_a_library():
    assert packing_of(layer("QuantLinear", package="transformers.models.ibert.quant_modules")) is None


def test_bitsandbytes_layers_are_read_off_their_tensors():
    four, eight = tiny.load(), tiny.load(kind="int8")
    path = "model.layers.0.mlp.up_proj"

    packings = [packing_of(model.get_submodule(path)) for model in (four, eight)]

    assert packings == [
        Packing("bitsandbytes", 4, "nf4", "bfloat16", (64, 128)),
        Packing("bitsandbytes", 8, "int8", features=(64, 128)),
    ]


def test_a_4_bit_layer_that_was_never_packed_is_not_quantized():
    import bitsandbytes

    assert packing_of(bitsandbytes.nn.Linear4bit(8, 4)) is None


def test_parameters_are_counted_before_packing():
    import transformers

    plain = sum(p.numel() for p in tiny.load(kind="none").parameters())

    assert collect(tiny.load()).numel == collect(tiny.load(kind="int8")).numel == plain
    assert collect(tiny.with_lora(tiny.load())).numel == plain
    assert collect(transformers.LlamaForCausalLM(transformers.LlamaConfig(**tiny._TEXT))).numel == plain


class Int8Tensor(torch.Tensor):
    """A weight as torchao packs it: a subclass of Tensor from its package, in an ordinary Linear."""

    act_quant_kwargs = None


class DynamicInt8Tensor(Int8Tensor):
    act_quant_kwargs: ClassVar = {"dtype": "int8"}


class IntxUnpackedToInt8Tensor(torch.Tensor):
    """Integers of few bits, each in a byte, with inputs that are quantized as they come."""

    target_dtype, activation_quantization = torch.int4, "int8_asym_per_token"


@pytest.mark.parametrize(
    ("cls", "bits", "trains"), [(Int8Tensor, 8, None), (DynamicInt8Tensor, 8, False), (IntxUnpackedToInt8Tensor, 4, False)]
)
def test_torchao_weights_are_told_by_their_tensor(monkeypatch, cls, bits, trains):
    module = nn.Linear(8, 4)
    packed = torch.zeros(4, 8).as_subclass(cls)
    monkeypatch.setattr(cls, "__module__", "torchao.quantization")
    monkeypatch.setitem(module._parameters, "weight", types.SimpleNamespace(data=packed))

    assert packing_of(module) == Packing("torchao", bits, cls.__name__, features=(8, 4), trains=trains)


def test_a_layer_of_bitsandbytes_without_a_weight_is_not_quantized():
    import bitsandbytes

    for cls in (bitsandbytes.nn.Linear4bit, bitsandbytes.nn.Linear8bitLt):
        made = cls(8, 4)
        del made._parameters["weight"]

        assert packing_of(made) is None


class Scored(nn.Module):
    """A head that turns two labels into one score, as those of XLM's multiple choice."""

    def __init__(self, labels):
        super().__init__()
        self.first, self.score = nn.Linear(48, labels), nn.Linear(labels, 1)

    def forward(self, x):
        return self.score(self.first(x))


@pytest.mark.parametrize("labels", [1, 2, 3])
def test_a_4_bit_layer_of_two_weights_has_no_backward(labels):
    model = get_peft_model(quantized(Scored(labels).to(torch.bfloat16)), LoraConfig(r=2, target_modules=["first", "score"]))

    report = kbitlint.check(model, context=TrainingContext(autocast_dtype="float32"))
    try:
        model(torch.randn(2, 48, dtype=torch.bfloat16)).sum().backward()
    except RuntimeError as error:
        real = str(error)
    else:
        real = ""

    errors = [violation.message for violation in report.violations if violation.severity.value == "error"]
    assert report.crashes == ()
    assert (any("cannot be multiplied" in message for message in errors), bool(errors)) == (
        ("cannot be multiplied" in real),
    ) * 2
