from __future__ import annotations

import pytest
from checkpoint_cases import BNB, checkpoint, findings, floats, packed, skipped

PACKED = packed("model.layers.0.up_proj")


def folder(tmp_path, tensors, names):
    return checkpoint(tmp_path, tensors, BNB | {"llm_int8_skip_modules": names})


@pytest.mark.parametrize("names", [["up_proj"], ["model.layers.0.up_proj"], ["model.layers.0"]])
def test_a_packed_module_that_the_list_spares(tmp_path, names):
    assert findings("KB823", folder(tmp_path, PACKED, names)) == [
        ("error", "config.json model.layers.0.up_proj", "the skip list names the module, and its weight is packed")
    ]


def test_a_float_module_that_the_list_does_not_name(tmp_path):
    tensors = PACKED | floats("model.layers.1.up_proj", "model.layers.0.q_proj", "model.embed_tokens")

    assert findings("KB823", folder(tmp_path, tensors, ["lm_head"])) == [
        (
            "error",
            f"config.json model.layers.{place}",
            "the weight is stored as floats, and the skip list does not name the module",
        )
        for place in ("0.q_proj", "1.up_proj")
    ]


@pytest.mark.parametrize(
    ("tensors", "names"),
    [
        pytest.param(PACKED, None, id="the default list"),
        pytest.param(PACKED | floats("model.layers.0.mlp.gate", "lm_head"), ["lm_head"], id="a router and a head"),
        pytest.param(PACKED | floats("model.layers.1.up_proj"), ["layers.1"], id="named by its middle"),
        pytest.param(PACKED | floats("model.layers.1.up_proj"), [r"(a+)+$"], id="a pattern, which is not run"),
        pytest.param(floats("model.layers.1.up_proj"), [], id="nothing packed"),
    ],
)
def test_look_alikes(tmp_path, tensors, names):
    assert findings("KB823", folder(tmp_path, tensors, names)) == []


def test_other_methods_have_other_lists(tmp_path):
    assert findings("KB823", checkpoint(tmp_path, PACKED, {"quant_method": "gptq", "llm_int8_skip_modules": ["up_proj"]})) == []


def test_without_headers_nothing_is_said(tmp_path):
    assert skipped("KB823", folder(tmp_path, None, [])) == ["no safetensors headers here"]
