from __future__ import annotations

import json

import pytest
import tiny
import torch
from checkpoint_cases import adapter, checkpoint, findings, lora, skipped

import kbitlint

CODE = "KB637"
FILE = "tokenizer_config.json added_tokens_decoder"


def found(model):
    return [(v.at.path, v.severity.value, v.message) for v in kbitlint.check(model, select=CODE).violations]


def test_a_vocabulary_above_the_rows_stops_the_loss():
    model = tiny.load()
    model.config.vocab_size = 300

    assert found(model) == [("config.vocab_size", "error", "vocab_size is 300, and the input embedding has 256 rows")]
    ids = torch.arange(1, 9)[None]
    with pytest.raises(RuntimeError, match="is invalid for input of size"):
        model(input_ids=ids, labels=ids)


def test_a_special_token_without_a_row_cannot_be_read():
    model = tiny.load()
    model.config.pad_token_id = 256

    assert found(model) == [("config.pad_token_id", "warning", "pad_token_id is 256, and the input embedding has 256 rows")]
    with pytest.raises(IndexError, match="index out of range"):
        model(torch.tensor([[5, 256]]))
    model.resize_token_embeddings(257)
    assert found(model) == []


@pytest.mark.parametrize("family", sorted(tiny.FAMILIES))
def test_models_as_they_are_loaded_have_rows_for_their_tokens(family):
    assert found(tiny.load(family)) == []


def test_adapters_on_the_embedding_change_nothing():
    model = tiny.load()
    model.config.pad_token_id = 300

    assert [path for path, _, _ in found(tiny.with_lora(model, target_modules=["embed_tokens"]))] == ["config.pad_token_id"]


def tokenizer(folder, *ids):
    added = {str(number): {"content": f"[{number}]"} for number in ids}
    (folder / "tokenizer_config.json").write_text(json.dumps({"added_tokens_decoder": added}))
    return folder


def test_a_tokenizer_with_more_tokens_than_the_base_has_rows(tmp_path):
    base = checkpoint(tmp_path / "base", {"model.embed_tokens.weight": ("BF16", (32, 4))}, vocab_size=32)
    message = "the tokenizer has a token 32, and the input embedding 32 rows"

    assert findings(CODE, tokenizer(base, 0, 32)) == [("warning", FILE, message)]
    assert findings(CODE, tokenizer(base, 0, 31)) == []
    folder = adapter(tmp_path / "adapter", lora("q_proj"), base=base)
    assert findings(CODE, tokenizer(folder, 32)) == [("warning", FILE, message)]


def test_an_adapter_with_rows_of_its_own_has_the_tokens(tmp_path):
    base = checkpoint(tmp_path / "base", {"model.embed_tokens.weight": ("BF16", (32, 4))}, vocab_size=32)
    rows = {"base_model.model.model.embed_tokens.weight": ("BF16", (33, 4))}

    assert findings(CODE, tokenizer(adapter(tmp_path / "adapter", lora("q_proj") | rows, base=base), 32)) == []


def test_without_a_tokenizer_or_a_base_the_rule_is_skipped(tmp_path):
    reason = ["no tokenizer with added tokens beside the config of a model here"]

    assert skipped(CODE, checkpoint(tmp_path / "base", None, vocab_size=32)) == reason
    assert skipped(CODE, tokenizer(adapter(tmp_path / "adapter", lora("q_proj")), 32)) == reason
    broken = checkpoint(tmp_path / "broken", None, vocab_size=32)
    (broken / "tokenizer_config.json").write_text("{")
    assert skipped(CODE, broken) == reason
