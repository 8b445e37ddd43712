"""KB548: targets that are collected by a layer class which the model does not have."""

from __future__ import annotations

import bitsandbytes as bnb
import peft
import pytest
import tiny
from script_cases import LOADED, PREPARED, findings

HELPER = """\
import bitsandbytes as bnb
def find_all_linear_names(model):
    names = set()
    for name, module in model.named_modules():
        if isinstance(module, bnb.nn.Linear8bitLt):
            names.add(name.split('.')[-1])
    return list(names)
"""
ATTACH = "model = get_peft_model(model, LoraConfig(r=8, target_modules=find_all_linear_names(model)))\n"


def said(body):
    return [(severity, message) for severity, _, message in findings("KB548", body)]


def test_the_search_is_empty_and_peft_refuses_an_empty_list():
    model = tiny.load("llama", kind="nf4")

    assert [name for name, module in model.named_modules() if isinstance(module, bnb.nn.Linear8bitLt)] == []
    with pytest.raises(ValueError, match=r"[Tt]arget"):
        peft.get_peft_model(model, peft.LoraConfig(task_type="CAUSAL_LM", target_modules=[]))


def test_a_search_for_the_other_class_is_an_error():
    message = "layers of class Linear8bitLt are searched, and the model's are Linear4bit"

    assert said(HELPER + LOADED + PREPARED + ATTACH) == [("error", message)]


@pytest.mark.parametrize(
    "body",
    [
        HELPER.replace("Linear8bitLt", "Linear4bit") + LOADED + PREPARED + ATTACH,
        HELPER.replace("bnb.nn.Linear8bitLt", "(bnb.nn.Linear4bit, bnb.nn.Linear8bitLt)") + LOADED + PREPARED + ATTACH,
        HELPER + LOADED + PREPARED + "model = get_peft_model(model, LoraConfig(target_modules='all-linear'))\n",
        HELPER + LOADED.replace("load_in_4bit", "load_in_8bit") + PREPARED + ATTACH,
    ],
)
def test_the_right_class_or_both_or_named_targets_are_clean(body):
    assert said(body) == []
