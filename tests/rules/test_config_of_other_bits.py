"""Rule KB333: config-of-other-bits."""

from __future__ import annotations

import pytest
import tiny
import torch
from checkpoint_cases import findings, reconfigured
from safetensors.torch import load_file, save_file

BITS, PACKED = "KB333", "KB123"


@pytest.fixture
def folder(tmp_path):
    tiny.load().save_pretrained(tmp_path)
    return tmp_path


def test_a_saved_model_is_of_the_bits_of_its_config(folder):
    assert [findings(code, folder) for code in (BITS, PACKED)] == [[], []]


def test_a_config_of_the_8_bit_variant_beside_4_bit_weights(folder):
    def change(config):
        config["quantization_config"] |= {"load_in_4bit": False, "load_in_8bit": True}

    assert findings(BITS, reconfigured(folder, change)) == [
        (
            "error",
            "config.json quantization_config.load_in_8bit",
            "config.json asks for 8 bits, and all weights are packed in 4 bits",
        )
    ]


def test_stored_scales_that_no_size_of_blocks_gives(folder):
    path = folder / "model.safetensors"
    tensors = load_file(path)
    name = "model.layers.0.self_attn.q_proj.weight"
    tensors[f"{name}.absmax"] = torch.ones(len(tensors[f"{name}.absmax"]) - 1)
    save_file(tensors, path, {"format": "pt"})

    ((severity, place, message),) = findings(PACKED, folder)

    assert (severity, place) == ("error", f"model.safetensors {name.removesuffix('.weight')}")
    assert message.startswith("the packed weight contradicts its record: 63 block maxima are stored")
