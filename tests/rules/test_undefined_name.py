from __future__ import annotations

from unittest.mock import MagicMock

import pytest
from script_cases import findings

CODE = "KB661"


IMPORTS = "from transformers import AutoModelForCausalLM, BitsAndBytesConfig\n"
LOAD = "model = AutoModelForCausalLM.from_pretrained('org/base', quantization_config={0})\n"
MADE = "bnb = BitsAndBytesConfig(load_in_4bit=True)\n"


@pytest.mark.parametrize(
    ("body", "name"),
    [
        (IMPORTS + LOAD.format("bnb"), "bnb"),
        (
            IMPORTS.replace(", BitsAndBytesConfig", "") + LOAD.format("BitsAndBytesConfig(load_in_4bit=True)"),
            "BitsAndBytesConfig",
        ),
        (IMPORTS + MADE + LOAD.format("bnb") + "trainer = SFTTrainer(model=model, peft_config=lora)\n", "SFTTrainer"),
        (IMPORTS + "kind = torch.bfloat16\n" + MADE + LOAD.format("bnb"), "torch"),
        (IMPORTS + "bnb = BitsAndBytesConfig(load_in_4bit=settings.packed)\n" + LOAD.format("bnb"), "settings"),
        (IMPORTS + MADE + "def load():\n    return PeftModel.from_pretrained(model, 'a')\nload()\n", "PeftModel"),
    ],
)
def test_a_name_that_nothing_binds_is_a_name_error(body, name):
    names = {one: MagicMock() for one in ("AutoModelForCausalLM", "BitsAndBytesConfig") if one != name}
    with pytest.raises(NameError, match=f"name '{name}' is not defined"):
        exec(body[body.index("\n") :], names)  # noqa: S102  # the truth, without the libraries

    found = findings(CODE, body, imports="")

    assert found[0][0] == "error"
    assert f"nothing in this file binds {name}: a NameError" in {message for _, _, message in found}


@pytest.mark.parametrize(
    "body",
    [
        IMPORTS + MADE + LOAD.format("bnb"),
        IMPORTS + "def load(bnb):\n    " + LOAD.format("bnb"),
        IMPORTS + "from settings import *\n" + LOAD.format("bnb"),
        IMPORTS + "exec(open('settings.py').read())\n" + LOAD.format("bnb"),
        IMPORTS + "for bnb in configs:\n    " + LOAD.format("bnb"),
        IMPORTS + "try:\n    " + LOAD.format("bnb") + "except NameError:\n    pass\n",
        IMPORTS + "def f():\n    global bnb\n    bnb = None\nf()\n" + LOAD.format("bnb"),
        LOAD.format("bnb"),
        IMPORTS + "import torch.nn as nn, torch.utils.data\nkind = torch.bfloat16\n" + MADE + LOAD.format("bnb"),
        IMPORTS
        + "def made(settings):\n    return BitsAndBytesConfig(load_in_4bit=settings.packed)\n"
        + MADE
        + LOAD.format("bnb"),
        IMPORTS
        + "with open('s') as settings:\n    bnb = BitsAndBytesConfig(load_in_4bit=settings.closed)\n"
        + MADE
        + LOAD.format("bnb"),
    ],
)
def test_a_name_that_something_binds_or_may_bind_is_clean(body):
    assert findings(CODE, body, imports="") == []
