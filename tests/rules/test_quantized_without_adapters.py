from __future__ import annotations

import pytest
from written import ADAPTED, LOADED, LOOP, RECIPE, TRAINED, places, said

BARE = LOADED + TRAINED
RESULT_LOST = LOADED + "peft_model = wrap(model)\n" + TRAINED


def test_a_trainer_refuses_a_bare_quantized_model():
    assert said("KB220", BARE) == [
        ("error", TRAINED.strip(), "the quantized model has no adapters, and Trainer refuses to train it")
    ]


def test_merging_before_training_takes_the_adapters_away():
    assert places("KB220", LOADED + ADAPTED + "model = model.merge_and_unload()\n" + TRAINED) == [("error", TRAINED.strip())]


@pytest.mark.parametrize(
    "script",
    [
        pytest.param(RECIPE, id="adapters"),
        pytest.param(LOADED + "SFTTrainer(model, peft_config=LoraConfig()).train()\n", id="the trainer attaches them"),
        pytest.param(LOADED + "SFTTrainer(model, peft_config=config).train()\n", id="the trainer may attach them"),
        pytest.param(LOADED + "SFTTrainer(model, **kwargs).train()\n", id="the trainer may be given a config"),
        pytest.param(RESULT_LOST, id="something unknown had the model"),
        pytest.param("model = AutoModelForCausalLM.from_pretrained('org/base')\n" + TRAINED, id="not quantized"),
        pytest.param(LOADED + "model.add_adapter(LoraConfig())\n" + TRAINED, id="transformers' own way"),
        pytest.param(LOADED + "if lora:\n    " + ADAPTED + TRAINED, id="on one path only"),
        pytest.param(LOADED + LOOP, id="a loop of one's own is another rule's"),
    ],
)
def test_look_alikes(script):
    assert said("KB220", script) == []
