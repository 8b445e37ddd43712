"""Rule KB332: layers-not-stored, and KB333: config-of-other-bits."""

from __future__ import annotations

import json

import pytest
import tiny
import torch
import transformers
from checkpoint_cases import findings
from safetensors.torch import load_file, save_file

LAYERS, BITS, PACKED = "KB332", "KB333", "KB123"


@pytest.fixture
def folder(tmp_path):
    tiny.load().save_pretrained(tmp_path)
    return tmp_path


def reconfigured(folder, change):
    path = folder / "config.json"
    config = json.loads(path.read_text())
    change(config)
    path.write_text(json.dumps(config))
    return folder


def test_a_saved_model_stores_what_its_config_counts(folder):
    assert [findings(code, folder) for code in (LAYERS, BITS, PACKED)] == [[], [], []]


def test_a_config_with_more_layers_gets_random_ones(folder):
    reconfigured(folder, lambda config: config.update(num_hidden_layers=4, layer_types=None))

    assert findings(LAYERS, folder) == [
        ("error", "config.json num_hidden_layers", "config.json counts 4 layers, and tensors of 2 are stored")
    ]


def test_a_layer_that_runs_several_times_is_stored_once(tmp_path):
    config = transformers.AlbertConfig(
        hidden_size=32, num_hidden_layers=4, num_attention_heads=2, intermediate_size=32, embedding_size=16, vocab_size=64
    )
    transformers.AlbertModel(config).save_pretrained(tmp_path)

    assert findings(LAYERS, tmp_path) == []


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
