from __future__ import annotations

import pytest
import tiny
import torch

import kbitlint

CODE = "KB510"


class OwnLinear(torch.nn.Linear):
    """What remote code calls its linear layers."""


def with_own(*names):
    """A quantized Llama in which these layers are of a subclass, as loading would have left them."""
    model = tiny.load()
    for layer in model.model.layers:
        for name in names:
            packed = getattr(layer.mlp, name)
            own = OwnLinear(packed.in_features, packed.out_features, bias=False, dtype=torch.bfloat16)
            setattr(layer.mlp, name, own.requires_grad_(False))
    return model


def found(model):
    return [(v.at.path, v.message, v.severity.value) for v in kbitlint.check(model, select=CODE).violations]


def test_a_subclass_that_stays_float_is_worth_knowing_and_trains():
    model = with_own("up_proj")

    message = "OwnLinear is bfloat16 and on no list of layers to leave out"
    assert found(model) == [(f"model.layers.{i}.mlp.up_proj", message, "info") for i in (0, 1)]
    assert tiny.step(tiny.with_lora(model)).trains


def test_most_of_a_model_left_float_is_a_warning():
    assert {severity for _, _, severity in found(with_own("up_proj", "gate_proj", "down_proj"))} == {"warning"}


def test_layers_on_the_list_heads_and_adapters_are_not_flagged():
    assert found(tiny.load()) == []
    assert found(tiny.load(llm_int8_skip_modules=["k_proj", "lm_head"])) == []
    assert found(tiny.with_lora(tiny.load())) == []
    assert found(tiny.load("t5 (encoder-decoder)")) == []


def test_an_empty_shell_of_a_packed_layer_is_another_rules():
    if not tiny.TRANSFORMERS_5:  # which looks for the weight that the shell lacks
        with pytest.raises(AttributeError, match=r"`weight` is not an nn\.Module"):
            tiny.load("llama (tied)", llm_int8_skip_modules=["k_proj"])
        return
    assert found(tiny.load("llama (tied)", llm_int8_skip_modules=["k_proj"])) == []


def test_the_output_projection_of_torchs_attention_is_found():
    """A subclass of Linear: the quantizer of transformers 5 leaves it alone, that of 4 packs it."""
    model = tiny.load("llava (siglip)")
    (packed,) = (
        type(m).__name__ == "Linear4bit" for path, m in model.named_modules() if path.endswith("head.attention.out_proj")
    )

    paths = [path for path, _, _ in found(model)]

    assert packed is not tiny.TRANSFORMERS_5
    assert [path.rpartition("head.")[2] for path in paths] == ([] if packed else ["attention.out_proj"])


def test_without_a_quantizer_and_without_quantization_the_rule_is_skipped():
    model = tiny.load()
    del model.hf_quantizer

    reasons = [kbitlint.check(m, select=CODE).skips[0].reason for m in (model, tiny.load(kind="none"))]

    assert reasons == ["no quantizer is attached that says which layers it left out", "no layer is quantized"]
