from __future__ import annotations

import collections
import types

import pytest
import tiny
import torch

import kbitlint
from kbitlint.context import TrainingContext

CODE = "KB508"


class Kernel(torch.autograd.Function):
    """What an inference kernel is to autograd."""

    @staticmethod
    def forward(_, hidden, weight):
        return hidden @ weight.T


class MarlinQuantLinear(torch.nn.Module):
    """A GPTQ layer with the interface of GPTQModel's, computed by a kernel without a backward."""

    bits = 4

    def __init__(self, features):
        super().__init__()
        self.in_features = self.out_features = features
        self.register_buffer("qweight", torch.eye(features))

    def forward(self, hidden):
        return Kernel.apply(hidden, self.qweight.to(hidden.dtype))


class TorchQuantLinear(MarlinQuantLinear):
    SUPPORTS_TRAINING = True

    def forward(self, hidden):
        return hidden @ self.qweight.to(hidden.dtype).T


def gptq(cls):
    """A Llama whose output projections are such layers, with a LoRA before them."""
    model = tiny.load(kind="none")
    for layer in model.model.layers:
        layer.self_attn.o_proj = cls(64)
    from peft import LoraConfig, get_peft_model

    return get_peft_model(model, LoraConfig(r=4, target_modules=["v_proj"], init_lora_weights=False))


def found(model, **context):
    violations = kbitlint.check(model, select=CODE, context=TrainingContext(**context)).violations
    return [(v.at.path, v.message, v.severity.value) for v in violations]


def test_kernels_without_a_backward_are_flagged_and_raise():
    model = gptq(MarlinQuantLinear)

    assert found(model) == [(f"model.layers.{i}.self_attn.o_proj", "gptq kernel has no backward", "error") for i in (0, 1)]
    assert "backward" in tiny.step(model).error


def test_kernels_that_say_they_train_are_not_flagged_and_do():
    model = gptq(TorchQuantLinear)

    assert found(model) == []
    assert tiny.step(model).trains


def untrainable(monkeypatch):
    model = tiny.with_lora(tiny.load())
    monkeypatch.setattr(type(model.get_base_model().hf_quantizer), "is_trainable", property(lambda quantizer: False))
    return model


def test_a_quantizer_that_does_not_train_is_refused_by_trainer(monkeypatch, tmp_path):
    import transformers

    model = untrainable(monkeypatch)
    arguments = transformers.TrainingArguments(output_dir=str(tmp_path), report_to=[], use_cpu=True)

    message = "the quantizer of bitsandbytes does not support training, so Trainer refuses the model"
    assert found(model, sets_training_mode=True) == [("", message, "error")]
    with pytest.raises(ValueError, match="do not support training"):
        transformers.Trainer(model=model, args=arguments)


def test_a_loop_of_ones_own_may_run(monkeypatch):
    model = untrainable(monkeypatch)

    assert found(model) == [("", "the quantizer of bitsandbytes does not support training", "warning")]
    assert tiny.step(model).trains


def test_bitsandbytes_trains():
    assert found(tiny.load(), sets_training_mode=True) == []


def test_a_quantizer_that_cannot_say_is_no_violation(monkeypatch):
    model = tiny.load()

    def asks_for_a_package(quantizer):
        raise ImportError("gptqmodel")

    monkeypatch.setattr(type(model.hf_quantizer), "is_trainable", property(asks_for_a_package))

    assert found(model) == []


def test_unquantized_models_are_skipped():
    assert kbitlint.check(tiny.load(kind="none"), select=CODE).skips[0].reason == "no layer is quantized"


class Int8Tensor(torch.Tensor):
    """A weight as torchao's dynamic types pack it: the product with it does not require grad."""

    __module__ = "torchao.quantization"
    act_quant_kwargs = "dynamic"

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        if func is not torch.nn.functional.linear:
            return super().__torch_function__(func, types, args, kwargs or {})
        with torch._C.DisableTorchFunctionSubclass():
            return func(*args, **(kwargs or {})).detach()


def packed_by_torchao(layer):
    layer.weight = torch.nn.Parameter(layer.weight.detach().as_subclass(Int8Tensor), requires_grad=False)


class Scheme:
    """What compressed-tensors attaches to a Linear, whose forward it replaces."""

    __module__ = "compressed_tensors.quantization.quant_scheme"
    weights = input_activations = types.SimpleNamespace(num_bits=8, type="int")


class Cache(collections.UserDict):
    """Tensors that are moved to their device when they are read."""

    def __getitem__(self, name):
        found = super().__getitem__(name)
        return None if found is None else found.to("cpu")


def compressed(layer):
    layer.quantization_scheme = Scheme()
    layer.forward = lambda x: torch.nn.functional.linear(x.detach(), layer.weight)
    layer.weight.requires_grad = False
    layer.__dict__["_parameters"] = Cache(layer._parameters)


def unpack(model, args):
    assert not any(parameter.is_meta for parameter in model.parameters())


unpack.__module__ = "compressed_tensors.compressors.model_compressors.model_compressor"


def dynamic(targets, pack):
    from peft import LoraConfig, get_peft_model

    model = tiny.load(kind="none")
    model.register_forward_pre_hook(unpack)
    for module in model.model.layers.modules():
        if isinstance(module, torch.nn.Linear):
            pack(module)
    return get_peft_model(model, LoraConfig(r=4, target_modules=targets, init_lora_weights=False))


@pytest.mark.parametrize("pack", [packed_by_torchao, compressed])
@pytest.mark.parametrize(
    ("targets", "severity"),
    [(["q_proj", "up_proj"], "error"), (r".*layers.*_proj", "warning")],
    ids=["some", "all"],
)
def test_adapters_around_every_layer_carry_the_gradient_past_layers_that_round_what_comes_in(targets, severity, pack):
    model = dynamic(targets, pack)

    assert {told for _, _, told in found(model)} == {severity}
    assert tiny.step(model).trains is (severity == "warning")
