"""KB545: adapters that are loaded to be trained beside an active one."""

from __future__ import annotations

import peft
import pytest
import tiny
from script_cases import LOADED, PREPARED, TRAINED, findings, fixed_text

FIRST = "model = PeftModel.from_pretrained(model, 'domain')\n"
SECOND = "model.load_adapter('persona', adapter_name='persona', is_trainable=True)\n"


def said(body):
    return [(severity, message) for severity, _, message in findings("KB545", body)]


def test_an_adapter_beside_an_active_one_gets_no_gradient(tmp_path):
    config = {"task_type": "CAUSAL_LM", "target_modules": ["q_proj"]}
    peft.get_peft_model(tiny.load("llama", kind="none"), peft.LoraConfig(**config)).save_pretrained(tmp_path)
    model = peft.PeftModel.from_pretrained(tiny.load("llama", kind="none"), tmp_path, is_trainable=True)
    model.load_adapter(tmp_path, adapter_name="persona", is_trainable=True)

    tiny.step(model)

    learned = {name: p.grad is not None for name, p in model.named_parameters() if p.requires_grad}
    assert {on for name, on in learned.items() if "persona" in name} == {False}
    assert {on for name, on in learned.items() if "default" in name} == {True}


def test_it_is_an_error_and_names_the_adapter():
    assert said(LOADED + PREPARED + FIRST + SECOND + TRAINED) == [
        ("error", "the adapter 'persona' is loaded to be trained, and another one stays active")
    ]


@pytest.mark.parametrize(
    "body",
    [
        FIRST + SECOND + "model.set_adapter('persona')\n" + TRAINED,
        FIRST + SECOND.replace(", is_trainable=True", "") + TRAINED,
        FIRST + SECOND,
        SECOND + TRAINED,
        FIRST + TRAINED,
    ],
)
def test_an_adapter_that_is_activated_frozen_or_not_trained_is_clean(body):
    assert said(LOADED + PREPARED + body) == []


def test_it_is_activated_only_if_asked(tmp_path):
    body = LOADED + PREPARED + FIRST + SECOND + TRAINED

    assert fixed_text("KB545", body, tmp_path, unsafe=False) == body
    assert fixed_text("KB545", body, tmp_path) == body.replace(SECOND, SECOND + "model.set_adapter('persona')\n")
