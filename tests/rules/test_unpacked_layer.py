from __future__ import annotations

import io

import plants
import pytest
import tiny
import torch

import kbitlint

CODE = "KB506"


def found(model):
    return {v.at.path: (v.message, v.severity.value, v.evidence["tied"]) for v in kbitlint.check(model, select=CODE).violations}


@pytest.mark.skipif(not tiny.TRANSFORMERS_5, reason="transformers 4 cannot load it: test_unconverted_linear.py")
def test_a_tied_head_in_a_4_bit_shell_is_flagged_and_raises():
    model = tiny.load("llama (tied)", llm_int8_skip_modules=["k_proj"])

    assert found(model) == {"lm_head": ("Linear4bit holds a bfloat16 weight that is not packed", "error", True)}
    with pytest.raises(AssertionError):
        tiny.step(tiny.with_lora(model, target_modules=["q_proj"]))


def test_a_list_that_names_the_head_keeps_it_a_plain_layer():
    model = tiny.load("llama (tied)", llm_int8_skip_modules=["k_proj", "lm_head"])

    assert found(model) == {}
    assert tiny.step(tiny.with_lora(model, target_modules=["q_proj"])).trains


def test_eight_bit_layers_that_keep_float_weights_cost_memory_and_train():
    model = tiny.load(kind="int8", llm_int8_has_fp16_weight=True)
    bytes_of_8_bits = sum(p.nbytes for p in tiny.load(kind="int8").parameters())

    stored = io.BytesIO()
    torch.save(model, stored)
    stored.seek(0)

    told = dict.fromkeys(plants.QUANTIZED, ("Linear8bitLt holds a bfloat16 weight that is not packed", "warning", False))
    assert found(model) == told
    assert found(torch.load(stored, weights_only=False)) == told  # each weight is a plain parameter now
    assert sum(p.nbytes for p in model.parameters()) > 1.5 * bytes_of_8_bits
    assert tiny.step(tiny.with_lora(model)).trains


def test_a_layer_that_was_not_moved_yet_is_packed_by_moving_it():
    import bitsandbytes
    import torch

    model = tiny.load()
    layer = bitsandbytes.nn.Linear4bit(64, 128, bias=False, compute_dtype=torch.bfloat16, quant_type="nf4")
    model.model.layers[0].mlp.up_proj = layer

    message = "Linear4bit holds a float32 weight that is not packed until it is moved to its device"
    assert found(model) == {"model.layers.0.mlp.up_proj": (message, "warning", False)}
    with pytest.raises(AssertionError):
        tiny.step(tiny.with_lora(model, target_modules=["q_proj"]))
    layer.to("cpu")
    assert found(model) == {}
    assert tiny.step(tiny.with_lora(model, target_modules=["v_proj"])).error is None


def test_layers_without_a_weight_of_their_own_are_no_shells():
    import bitsandbytes

    model = tiny.load()
    model.model.extra = bitsandbytes.nn.Linear4bit(8, 8)
    del model.model.extra._parameters["weight"]

    assert found(model) == {}


def test_packed_layers_are_not_flagged():
    assert found(tiny.load()) == {}
    assert found(tiny.load(kind="int8")) == {}
    assert found(tiny.with_lora(tiny.load())) == {}


def test_plain_models_are_skipped():
    assert kbitlint.check(tiny.load(kind="none"), select=CODE).skips[0].reason == "no layer is quantized"


@pytest.mark.skipif(not tiny.TRANSFORMERS_5, reason="transformers 4 cannot load it: test_unconverted_linear.py")
def test_a_tied_head_in_an_8_bit_shell_raises_too():
    model = tiny.load("llama (tied)", "int8", llm_int8_skip_modules=["k_proj"])

    assert found(model) == {"lm_head": ("Linear8bitLt holds a bfloat16 weight that is not packed", "error", True)}
    with pytest.raises(AttributeError, match="CB"):
        tiny.step(tiny.with_lora(model, target_modules=["q_proj"]))


@pytest.mark.skipif(not tiny.TRANSFORMERS_5, reason="transformers 4 cannot load it: test_unconverted_linear.py")
def test_a_layer_that_the_step_does_not_run_is_not_flagged():
    import torch

    model = tiny.load("llama (tied)", llm_int8_skip_modules=["k_proj"])
    head = model.lm_head

    class Loss(torch.nn.Module):
        """A loss that reads the head's weight by itself, as TRL's chunked loss does."""

        def __init__(self):
            super().__init__()
            self.head = head

        def forward(self, hidden):
            return torch.nn.functional.linear(hidden, self.head.weight)

    model.lm_head = Loss()
    adapted = tiny.with_lora(model, target_modules=["q_proj"])

    assert found(adapted) == {}
    assert tiny.step(adapted).trains
