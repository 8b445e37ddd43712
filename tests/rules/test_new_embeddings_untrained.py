from __future__ import annotations

import pytest
from script_cases import ADAPTED, LOADED, PREPARED, TRAINED, findings

GROWN = "tokenizer.add_tokens(['<a>'])\n" + LOADED + "model.resize_token_embeddings(len(tokenizer))\n" + PREPARED
GROWTH = "model.resize_token_embeddings(len(tokenizer))"


def test_new_rows_stay_as_they_were_created():
    assert findings("KB622", GROWN + ADAPTED + TRAINED) == [
        ("warning", GROWTH, "rows for new tokens are added to the embeddings, and no adapter trains them")
    ]


@pytest.mark.parametrize(
    "script",
    [
        pytest.param(
            GROWN + "model = get_peft_model(model, LoraConfig(modules_to_save=['embed_tokens']))\n" + TRAINED, id="saved"
        ),
        pytest.param(GROWN + "model = get_peft_model(model, LoraConfig(trainable_token_indices=ids))\n" + TRAINED, id="tokens"),
        pytest.param(
            GROWN + "model = get_peft_model(model, LoraConfig(target_modules=['embed_tokens']))\n" + TRAINED, id="target"
        ),
        pytest.param(GROWN + "model = get_peft_model(model, LoraConfig(**config))\n" + TRAINED, id="unknown config"),
        pytest.param(GROWN + "model = get_peft_model(model, config)\n" + TRAINED, id="config from elsewhere"),
        pytest.param(GROWN.replace("add_tokens(['<a>'])", "pad_token = '</s>'") + ADAPTED + TRAINED, id="padding only"),
        pytest.param(GROWN + "model = get_peft_model(model, PrefixTuningConfig())\n" + TRAINED, id="prefix tuning"),
        pytest.param(GROWN + TRAINED, id="no adapters"),
    ],
)
def test_look_alikes(script):
    assert findings("KB622", script) == []


@pytest.mark.parametrize(
    "script",
    [
        pytest.param(GROWN.replace("len(tokenizer)", "len(tokenizer), pad_to_multiple_of=8") + ADAPTED + TRAINED, id="padded"),
        pytest.param(GROWN + ADAPTED, id="trained by another file"),
    ],
)
def test_new_rows_are_untrained_however_many_and_whoever_trains(script):
    assert [severity for severity, *_ in findings("KB622", script)] == ["warning"]
