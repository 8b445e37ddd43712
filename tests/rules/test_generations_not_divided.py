from __future__ import annotations

import itertools

import pytest
from script_cases import LOADED, OLD, findings

CODE = "KB733"
MADE = "from trl import GRPOConfig\nargs = GRPOConfig('out', use_cpu=True, {})\n"
ALONE = LOADED.replace("config=bnb,", "config=bnb, device_map='auto',")
MESSAGE = "a generation batch of 4 is no multiple of the 8 generations for a prompt"


def test_the_rule_agrees_with_the_config_of_trl():
    trl = pytest.importorskip("trl", "1.16")
    wrong = []
    for batch, steps, generations in itertools.product((1, 2, 6), (1, 4), (2, 3, 8)):
        given = {
            "per_device_train_batch_size": batch,
            "gradient_accumulation_steps": steps,
            "num_generations": generations,
        }
        try:
            trl.GRPOConfig("unused", use_cpu=True, **given)
            refused = False
        except ValueError:
            refused = True
        code = ", ".join(f"{name}={value}" for name, value in given.items())
        said = [severity for severity, _, _ in findings(CODE, ALONE + MADE.format(code))]
        wrong += [] if said == ["error"] * refused else [(given, refused, said)]

    assert wrong == []


def test_several_processes_may_hold_whole_groups():
    few = MADE.format("per_device_train_batch_size=2, gradient_accumulation_steps=2")

    assert [(severity, message) for severity, _, message in findings(CODE, LOADED + few)] == [
        ("warning", f"{MESSAGE}, unless 2 processes or a multiple train: a ValueError")
    ]
    assert [(severity, message) for severity, _, message in findings(CODE, ALONE + few)] == [
        ("error", f"{MESSAGE}: a ValueError")
    ]


def test_an_evaluation_needs_whole_groups_too():
    asked = "num_generations=4, per_device_eval_batch_size=2, eval_strategy='steps'"

    assert [message for _, _, message in findings(CODE, ALONE + MADE.format(asked))] == [
        "a batch of an evaluation of 2 is no multiple of the 4 generations for a prompt: a ValueError"
    ]


def test_what_decides_otherwise_is_clean():
    few = MADE.format("per_device_train_batch_size=2, gradient_accumulation_steps=2")

    assert findings(CODE, ALONE + MADE.format("**further")) == []
    assert findings(CODE, "from unsloth import FastLanguageModel\n" + ALONE + few) == []
    assert (
        findings(CODE, ALONE + MADE.format("generation_batch_size=16, num_generations=8, per_device_train_batch_size=2")) == []
    )
    assert (
        findings(CODE, ALONE + MADE.format("per_device_train_batch_size=8, gradient_accumulation_steps=3"), versions=OLD) == []
    )
