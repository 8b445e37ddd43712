"""Rule KB332: layers-not-stored."""

from __future__ import annotations

import pytest
import tiny
import transformers
from checkpoint_cases import findings, reconfigured

LAYERS = "KB332"


@pytest.fixture
def folder(tmp_path):
    tiny.load().save_pretrained(tmp_path)
    return tmp_path


def test_a_saved_model_stores_what_its_config_counts(folder):
    assert findings(LAYERS, folder) == []


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
