from __future__ import annotations

import pytest
from script_cases import ADAPTED, LOADED, findings

REQUEST = "model = prepare_model_for_kbit_training(model, gradient_checkpointing_kwargs={'use_reentrant': True})\n"
MESSAGE = "a later call enables checkpointing with another use_reentrant, which holds"


def trained(arguments):
    return f"Trainer(model=model, args=TrainingArguments('o', bf16=True, {arguments}), train_dataset=data).train()\n"


def test_the_arguments_of_the_training_overrule_a_request():
    script = LOADED + REQUEST + ADAPTED + trained("gradient_checkpointing=True")

    assert findings("KB533", script) == [("info", REQUEST.strip(), MESSAGE)]


def test_a_method_of_the_model_may_ask_too():
    ask = "model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={'use_reentrant': False})\n"
    later = "gradient_checkpointing=True, gradient_checkpointing_kwargs={'use_reentrant': True}"

    assert findings("KB533", LOADED + ask + ADAPTED + trained(later)) == [("info", ask.strip(), MESSAGE)]


@pytest.mark.parametrize(
    "script",
    [
        pytest.param(LOADED + REQUEST + ADAPTED + trained("seed=1"), id="it holds"),
        pytest.param(
            LOADED + REQUEST.replace("True", "False") + ADAPTED + trained("gradient_checkpointing=True"), id="the same value"
        ),
        pytest.param(LOADED + REQUEST + ADAPTED, id="not trained here"),
        pytest.param(LOADED + REQUEST.replace("True", "flag") + ADAPTED + trained("gradient_checkpointing=True"), id="unknown"),
        pytest.param(
            LOADED + "if big:\n    " + REQUEST + ADAPTED + trained("gradient_checkpointing=big"), id="on some paths it holds"
        ),
        pytest.param(
            LOADED + REQUEST.replace("True", "True if old else False") + ADAPTED + trained("gradient_checkpointing=True"),
            id="on some path the same value",
        ),
    ],
)
def test_look_alikes(script):
    assert findings("KB533", script) == []
