"""KB657: classifiers on decoders whose config names no padding token, and the refusal itself."""

from __future__ import annotations

import pytest
import torch
import transformers
from script_cases import LOADED, PREPARED, TRAINED, beside, findings

CLASSIFIER = "from transformers import AutoModelForSequenceClassification\n" + LOADED.replace(
    "AutoModelForCausalLM", "AutoModelForSequenceClassification"
).replace("org/base", "base")
ADAPTED = "model = get_peft_model(model, LoraConfig(r=8, target_modules=['q_proj'], task_type='SEQ_CLS'))\n"
UNSET = "model.config.pad_token_id = None\n"
OWN = (
    "optimizer = torch.optim.AdamW(model.parameters())\nids = torch.randint(0, 50, ({}, 8))\n"
    "loss = model(input_ids=ids, labels=targets).loss\nloss.backward()\noptimizer.step()\n"
)
NONE, SOME = {"pad_token_id": None}, {"pad_token_id": 0}


def said(body, config, folder):
    return [(severity, line) for severity, line, _ in beside("KB657", body, folder, config)]


@pytest.mark.parametrize(
    ("between", "training", "config", "flagged"),
    [
        ("", TRAINED, NONE, True),
        (UNSET, TRAINED, SOME, True),
        ("", OWN.format(4), NONE, True),
        ("", TRAINED, SOME, False),
        ("", TRAINED, {}, False),
        ("model.config.pad_token_id = tokenizer.pad_token_id\n", TRAINED, NONE, False),
        (UNSET + "model.config.pad_token_id = 0\n", TRAINED, NONE, False),
        ("", TRAINED.replace("args=", "processing_class=tokenizer, args="), NONE, False),
        ("", TRAINED.replace("bf16", "per_device_train_batch_size=1, bf16"), NONE, False),
        ("", OWN.format(1), NONE, False),
        ("", TRAINED, {**NONE, "model_type": "bert"}, False),
    ],
)
def test_a_classifier_without_a_padding_token(between, training, config, flagged, tmp_path):
    line = "loss.backward()" if "backward" in training else training.strip()

    assert said(CLASSIFIER + between + PREPARED + ADAPTED + training, config, tmp_path) == [("error", line)] * flagged


NAMED = CLASSIFIER.replace('"base"', '"meta-llama/Llama-3.1-8B"') + PREPARED + ADAPTED
COLLATES = "def collate(rows, tokenizer):\n    return tokenizer.pad(rows, return_tensors='pt')\n\n\n"
OWN_TRAINER = "class Weighted(Trainer):\n    pass\n"


@pytest.mark.parametrize(
    ("body", "count"),
    [
        (NAMED + TRAINED, 1),
        (NAMED + TRAINED.replace("args=", "data_collator=DataCollatorWithPadding(tokenizer), args="), 1),
        (COLLATES + NAMED + TRAINED.replace("args=", "data_collator=functools.partial(collate, tokenizer=tok), args="), 1),
        (OWN_TRAINER + NAMED + TRAINED.replace("Trainer(", "Weighted(", 1), 1),
        (NAMED + TRAINED.replace("args=", "data_collator=packed, args="), 0),
        (NAMED.replace("meta-llama", "unsloth") + TRAINED, 0),
        (NAMED + "model.config.pad_token_id = 0\n" + TRAINED, 0),
    ],
)
def test_a_checkpoint_is_known_by_its_name(body, count):
    assert [severity for severity, *_ in findings("KB657", body)] == ["error"] * count


def test_a_model_of_text_needs_none(tmp_path):
    assert said(LOADED.replace("org/base", "base") + PREPARED + ADAPTED + TRAINED, NONE, tmp_path) == []


def test_t5_needs_one(tmp_path):
    body = CLASSIFIER.replace("SequenceClassification", "Seq2SeqLM") + PREPARED + ADAPTED + TRAINED

    assert said(body, {**NONE, "model_type": "t5"}, tmp_path) == [("error", TRAINED.strip())]


def test_transformers_refuses_it():
    config = transformers.LlamaConfig(
        vocab_size=64, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, pad_token_id=None
    )

    with pytest.raises(ValueError, match="Cannot handle batch sizes > 1 if no padding token is defined"):
        transformers.LlamaForSequenceClassification(config)(input_ids=torch.ones(2, 4, dtype=torch.long))
