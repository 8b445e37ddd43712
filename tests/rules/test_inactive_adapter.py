"""KB545: adapters that are added to be trained beside an active one."""

from __future__ import annotations

import peft
import pytest
import tiny
from script_cases import LOADED, LOOP, PREPARED, TRAINED, findings, fixed_text

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


FIRST_TRAINED = LOADED + PREPARED + "model = get_peft_model(model, LoraConfig(r=8), adapter_name='sql')\n" + TRAINED
MORE = "model.add_adapter('math', LoraConfig(r=16))\n"
IDLE = [("error", "the adapter 'math' is added to be trained, and another one stays active")]


def test_an_added_adapter_gets_no_gradient_until_it_is_set():
    config = peft.LoraConfig(task_type="CAUSAL_LM", target_modules=["q_proj"])
    model = peft.get_peft_model(tiny.load("llama", kind="nf4"), config, adapter_name="sql")
    model.add_adapter("math", config)

    tiny.step(model)

    assert {name.split(".")[-2] for name, p in model.named_parameters() if p.grad is not None} == {"sql"}


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (FIRST_TRAINED + MORE + TRAINED, IDLE),
        (FIRST_TRAINED + "model.set_adapter('sql')\n" + MORE + TRAINED, IDLE),
        (FIRST_TRAINED + "model.add_adapter(peft_config=LoraConfig(r=16), adapter_name='math')\n" + LOOP, IDLE),
        (FIRST_TRAINED + "model.add_weighted_adapter(['sql', 'x'], [1, 1], 'math')\n" + TRAINED, IDLE),
        (FIRST_TRAINED + "for name in names:\n    model.add_adapter('math', LoraConfig(r=16))\n" + TRAINED, IDLE),
        (FIRST_TRAINED + MORE + "model.set_adapter('math')\n" + TRAINED, []),
        (FIRST_TRAINED + MORE + "activate(model, 'math')\n", []),
        (
            "def use(m, name):\n    m.base_model.set_adapter(name)\n" + FIRST_TRAINED + MORE + "use(model, 'math')\n" + TRAINED,
            [],
        ),
        ("def use(m, name):\n    Box(m).set_adapter(name)\n" + FIRST_TRAINED + MORE + TRAINED, []),
        (FIRST_TRAINED + MORE, []),
        (FIRST_TRAINED + MORE.replace("r=16", "r=16, inference_mode=True") + TRAINED, []),
        (FIRST_TRAINED + MORE + "args = DPOConfig(ref_adapter_name='math')\n" + TRAINED, []),
        (LOADED + MORE + TRAINED, []),
        (FIRST_TRAINED.replace(TRAINED, "") + MORE + TRAINED, [("warning", IDLE[0][1])]),
        (FIRST_TRAINED + MORE + "model.delete_adapter('sql')\n" + TRAINED, []),
    ],
)
def test_an_adapter_that_is_added_and_never_active(body, expected):
    assert said(body) == expected


def test_an_added_adapter_is_activated_where_it_is_added(tmp_path):
    body = FIRST_TRAINED + MORE + TRAINED

    assert fixed_text("KB545", body, tmp_path) == FIRST_TRAINED + MORE + "model.set_adapter('math')\n" + TRAINED
