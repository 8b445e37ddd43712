from __future__ import annotations

import plants
import tiny
import torch

import kbitlint

CODE = "KB334"
#: the layers whose input is the embeddings, which no gradient enters
FIRST = [f"model.layers.0.self_attn.{name}_proj" for name in "qkv"]


def gradients(model):
    assert tiny.step(model).trains
    return [parameter.grad for parameter in model.parameters() if parameter.grad is not None]


def test_weights_that_an_evaluation_has_repacked_pass_on_no_gradient():
    """bitsandbytes repacks on CPUs with AVX512-BF16 only."""
    torch.manual_seed(0)
    expected = gradients(tiny.with_lora(tiny.load(bnb_4bit_quant_storage=torch.bfloat16)))
    torch.manual_seed(0)
    model = tiny.with_lora(tiny.load(bnb_4bit_quant_storage=torch.bfloat16)).eval()
    with torch.no_grad():
        model(torch.arange(1, 9)[None])
    layers = [module for module in model.modules() if type(module).__name__ == "Linear4bit"]
    repacked = [bool(getattr(layer.weight.quant_state, "packing_format_for_cpu", False)) for layer in layers]
    message = "bitsandbytes repacked the weight for the CPU's inference kernel, through which no gradient flows"
    told = {v.at.path: v.message for v in kbitlint.check(model, select=CODE).violations}
    after_first = [path for path in plants.QUANTIZED if path not in FIRST]

    assert told == ({f"{path}.base_layer": message for path in after_first} if any(repacked) else {})
    assert all(map(torch.allclose, gradients(model), expected)) != any(repacked)


def test_a_repacked_layer_whose_input_needs_no_gradient_passes_all_there_is():
    """A training in eval mode repacks nothing but layers whose input requires no grad."""
    model = tiny.with_lora(tiny.load()).eval()
    batch = torch.arange(1, 9)[None]
    model(input_ids=batch, labels=batch).loss.backward()
    layers = [name for name, module in model.named_modules() if type(module).__name__ == "Linear4bit"]
    repacked = [
        name for name in layers if getattr(model.get_submodule(name).weight.quant_state, "packing_format_for_cpu", False)
    ]

    assert {name.removeprefix("base_model.model.").removesuffix(".base_layer") for name in repacked} <= set(FIRST)
    assert kbitlint.check(model, select=CODE).violations == ()
