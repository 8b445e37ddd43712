from __future__ import annotations

import pytest
import tiny
import torch
from checkpoint_cases import BNB, checkpoint, findings, floats, packed, skipped

import kbitlint

FOUR, EIGHT = packed("layers.0.q_proj"), packed("layers.0.q_proj", 8)


def without(tensors, *names):
    return {name: tensor for name, tensor in tensors.items() if not name.endswith(names)}


@pytest.mark.parametrize(
    ("tensors", "missing"),
    [
        (without(FOUR, "absmax"), "absmax"),
        (without(FOUR, "quant_map"), "quant_map"),
        (without(FOUR, "nf4"), "quant_state"),
        (without(FOUR, "absmax", "quant_map", "nf4"), "absmax, quant_map, quant_state"),
        (FOUR | {"layers.0.q_proj.weight.nested_absmax": ("F32", (1,))}, "nested_quant_map"),
        (without(EIGHT, "SCB"), "SCB"),
    ],
)
def test_a_weight_without_what_unpacks_it(tmp_path, tensors, missing):
    assert findings("KB822", checkpoint(tmp_path, tensors, BNB)) == [
        ("error", "model.safetensors layers.0.q_proj", f"a packed weight is stored without its {missing}")
    ]


@pytest.mark.parametrize("tensors", [without(FOUR, "q_proj.weight"), without(EIGHT, "q_proj.weight")])
def test_a_state_without_its_weight(tmp_path, tensors):
    assert findings("KB822", checkpoint(tmp_path, tensors, BNB)) == [
        ("error", "model.safetensors layers.0.q_proj", "a quantization state is stored without its weight")
    ]


@pytest.mark.parametrize("tensors", [FOUR, EIGHT, floats("layers.0.q_proj"), {"a.weight": ("U8", (4, 2))}])
def test_look_alikes(tmp_path, tensors):
    assert findings("KB822", checkpoint(tmp_path, tensors, BNB)) == []


def test_what_is_not_here_is_not_judged(tmp_path):
    folder = checkpoint(tmp_path, FOUR, BNB)
    (folder / "broken.safetensors").write_bytes(b"")

    assert skipped("KB822", folder) == ["not all safetensors headers are here"]
    assert skipped("KB822", checkpoint(tmp_path / "bare", None)) == ["no safetensors headers here"]


def layer_of(model, path="layers.0.mlp.up_proj"):
    """The quantized layer at a path, below its adapter."""
    found = next(module for name, module in model.named_modules() if name.endswith(path))
    return getattr(found, "base_layer", found)


@pytest.mark.parametrize("adapted", [False, True])
@pytest.mark.parametrize(("kind", "name"), [("nf4", "quant_state"), ("fp4", "quant_state"), ("int8", "SCB")])
def test_a_weight_in_a_model_that_has_lost_its_state_fails_in_the_first_step(kind, name, adapted):
    model = tiny.load(kind=kind)
    model = tiny.with_lora(model) if adapted else model
    layer = layer_of(model)
    setattr(layer.weight, name, None)
    layer.quant_state = None

    report = kbitlint.check(model, select="KB822")
    assert [(v.code, v.severity.value, v.at.path, v.message) for v in report.violations] == [
        ("KB822", "error", f"model.layers.0.mlp.up_proj{'.base_layer' * adapted}", f"a packed weight is without its {name}")
    ]
    with pytest.raises((ValueError, AttributeError), match=r"quant_state is required|'NoneType' object has no attribute"):
        tiny.step(model)


def test_a_weight_that_was_replaced_by_its_bytes_has_lost_its_state():
    model = tiny.with_lora(tiny.load())
    layer = layer_of(model)
    layer.weight = torch.nn.Parameter(layer.weight.data, requires_grad=False)
    layer.quant_state = None

    assert tiny.codes(kbitlint.check(model, select="KB822")) == {("KB822", "model.layers.0.mlp.up_proj.base_layer")}
    with pytest.raises(ValueError, match="quant_state is required"):
        tiny.step(model)


@pytest.mark.parametrize("kind", ["nf4", "int8"])
def test_states_that_the_kernel_finds_elsewhere_train(kind):
    model = tiny.with_lora(tiny.load(kind=kind))
    if kind == "nf4":
        layer_of(model).weight.quant_state = None  # the layer has it too
    assert tiny.step(model).trains
    report = kbitlint.check(model, select="KB822")  # in 8 bits the first step has moved it into the layer

    assert (report.violations, tiny.step(model).trains) == ((), True)


def test_a_model_without_weights_has_lost_nothing():
    report = kbitlint.check(tiny.checkpoint(), quantize="nf4", select="KB822")

    assert report.violations == ()
