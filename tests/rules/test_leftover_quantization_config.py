from __future__ import annotations

import json

import pytest
from checkpoint_cases import BNB, checkpoint, findings, floats, packed, skipped

from kbitlint.api import fix

LAYERS = floats("model.embed_tokens", "model.layers.0.q_proj")


def test_float_weights_beside_a_config_that_says_packed(tmp_path):
    assert findings("KB820", checkpoint(tmp_path, LAYERS, BNB)) == [
        (
            "error",
            "config.json quantization_config",
            "config.json says that the model is quantized, and all 2 matrices are stored as floats",
        )
    ]


@pytest.mark.parametrize(
    ("tensors", "quantization"),
    [
        pytest.param(LAYERS, None, id="no config"),
        pytest.param(LAYERS | packed("model.layers.1.q_proj"), BNB, id="packed"),
        pytest.param(LAYERS | packed("model.layers.1.q_proj", 8), BNB, id="packed in 8 bits"),
        pytest.param(LAYERS, {"quant_method": "gptq"}, id="another method"),
        pytest.param(LAYERS | {"model.layers.1.q_proj.qweight": ("I32", (4, 4))}, BNB, id="packed by another method"),
    ],
)
def test_look_alikes(tmp_path, tensors, quantization):
    assert findings("KB820", checkpoint(tmp_path, tensors, quantization)) == []


def test_without_headers_nothing_is_said(tmp_path):
    assert skipped("KB820", checkpoint(tmp_path, None, BNB)) == ["not all safetensors headers are here"]


def test_the_fix_deletes_the_key_in_place(tmp_path):
    folder = checkpoint(tmp_path, LAYERS, BNB, hidden_size=4)
    (folder / "config.json").write_text(json.dumps({"a": 1, "quantization_config": BNB, "z": [1, 2]}, indent=4))

    fix(str(folder / "config.json"), select="KB820")
    assert "quantization_config" in (folder / "config.json").read_text()  # one file alone does not show the weights

    from kbitlint.context import TrainingContext
    from kbitlint.fixes.files import mend_files
    from kbitlint.registry import find
    from kbitlint.target import parse
    from kbitlint.violation import Safety

    (mended,) = mend_files(parse(str(folder)), (find("KB820"),), TrainingContext(), Safety.SAFE)

    assert mended.after == json.dumps({"a": 1, "z": [1, 2]}, indent=4)
