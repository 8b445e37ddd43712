from __future__ import annotations

import pytest
from script_cases import ADAPTED, LOADED, NEWEST, fixed_text
from script_cases import findings as said_of

#: a script may tell what it needs
PINNED = "# pip install deepspeed==0.17.4\n"
OLDER = {**NEWEST, "deepspeed": "0.19.2"}
ZERO3 = "Trainer(model=model, args=TrainingArguments('out', deepspeed='z3.json', gradient_checkpointing=True)).train()\n"


def said(code, script):
    return said_of(code, script, versions=OLDER)


def test_a_deepspeed_that_copes_is_not_flagged():
    assert said_of("KB723", LOADED + ADAPTED + ZERO3) == []
    assert said_of("KB723", LOADED + ADAPTED + ZERO3, versions={**NEWEST, "deepspeed": "0.20.0"}) == []


def test_the_default_of_transformers_5_fails_under_zero3():
    assert said("KB723", LOADED + ADAPTED + ZERO3) == [
        ("warning", ZERO3.strip(), "checkpointing without reentry finds the frozen weights taken apart by ZeRO-3")
    ]


def test_the_fix_checkpoints_reentrantly(tmp_path):
    body = fixed_text("KB723", PINNED + LOADED + ADAPTED + ZERO3, tmp_path)

    assert body.endswith(
        ZERO3.replace("checkpointing=True", 'checkpointing=True, gradient_checkpointing_kwargs={"use_reentrant": True}')
    )


def test_kwargs_that_are_given_are_shown_only(tmp_path):
    script = LOADED + ADAPTED + ZERO3.replace("=True)", "=True, gradient_checkpointing_kwargs={'use_reentrant': False})")

    assert len(said("KB723", script)) == 1
    assert fixed_text("KB723", PINNED + script, tmp_path) == PINNED + script


@pytest.mark.parametrize(
    "script",
    [
        pytest.param(LOADED + ADAPTED + ZERO3.replace("z3", "z2"), id="zero 2"),
        pytest.param(LOADED + ZERO3, id="no adapters"),
        pytest.param(LOADED + ADAPTED + ZERO3.replace(", gradient_checkpointing=True", ""), id="no checkpointing"),
        pytest.param(
            LOADED + "SFTTrainer(model, args=SFTConfig(deepspeed='z3.json'), peft_config=LoraConfig()).train()\n",
            id="TRL forces it",
        ),
        pytest.param(LOADED + ADAPTED + ZERO3.replace("'z3.json'", "{'zero_optimization': {'stage': 2}}"), id="a dict says 2"),
    ],
)
def test_look_alikes(script):
    assert said("KB723", script) == []
