from __future__ import annotations

import pytest
from checkpoint_cases import adapter, findings, lora, skipped

from kbitlint.files import checkpoint

BOTH = lora("q_proj", 0) | lora("v_proj", 0)


def test_an_adapter_that_no_gradient_has_reached(tmp_path):
    assert findings("KB625", adapter(tmp_path, BOTH)) == [
        ("warning", "adapter_model.safetensors", "all 2 lora_B are zero, so the adapter changes nothing")
    ]


def test_layers_that_no_gradient_has_reached_are_worth_knowing(tmp_path):
    name = "base_model.model.q_proj.lora_B.weight"
    assert findings("KB625", adapter(tmp_path, lora("q_proj", 0) | lora("v_proj", 1))) == [
        ("info", f"adapter_model.safetensors {name}", "1 of 2 lora_B are zero: no gradient reached these layers")
    ]


@pytest.mark.parametrize(
    ("tensors", "config"),
    [
        pytest.param(lora("q_proj", 1) | lora("v_proj", 1), {}, id="both have moved"),
        pytest.param(BOTH, {"init_lora_weights": "pissa"}, id="an initialisation that starts elsewhere"),
    ],
)
def test_look_alikes(tmp_path, tensors, config):
    assert findings("KB625", adapter(tmp_path, tensors, **config)) == []


def test_what_is_too_large_is_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "MAX_LOOKED_AT", 40)

    assert findings("KB625", adapter(tmp_path, BOTH)) == []


def test_without_lora_nothing_is_said(tmp_path):
    assert skipped("KB625", adapter(tmp_path, None)) == ["no lora_B in an adapter_model.safetensors here"]
