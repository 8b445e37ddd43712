from __future__ import annotations

import pytest
from checkpoint_cases import BNB, checkpoint, findings, floats, packed, skipped


@pytest.mark.parametrize("bits", [4, 8])
def test_packed_weights_that_no_config_speaks_of(tmp_path, bits):
    folder = checkpoint(tmp_path, packed("model.layers.0.q_proj", bits))

    assert findings("KB821", folder) == [
        ("error", "config.json", "1 weights are packed, and config.json has no quantization_config")
    ]


@pytest.mark.parametrize(
    ("tensors", "quantization"),
    [(packed("model.layers.0.q_proj"), BNB), (floats("model.layers.0.q_proj"), None), (floats("a", dtype="F32"), BNB)],
)
def test_look_alikes(tmp_path, tensors, quantization):
    assert findings("KB821", checkpoint(tmp_path, tensors, quantization)) == []


def test_without_headers_nothing_is_said(tmp_path):
    assert skipped("KB821", checkpoint(tmp_path, None)) == ["no safetensors headers here"]
