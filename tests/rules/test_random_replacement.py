from __future__ import annotations

import bitsandbytes as bnb
import pytest
import torch
from script_cases import PREPARED, findings

CODE = "KB578"
MADE = "new = bnb.nn.Linear4bit(child.in_features, child.out_features)"
LOADED = "import bitsandbytes as bnb\nmodel = AutoModelForCausalLM.from_pretrained('a')\n"


def replaced(*lines):
    body = "".join(f"        {line}\n" for line in (MADE, *lines, "setattr(module, name, new)"))
    return (
        LOADED
        + "def replace(module):\n    for name, child in module.named_children():\n"
        + body
        + "replace(model)\n"
        + PREPARED
    )


def test_a_layer_without_the_weight_of_the_one_before():
    message = "a new Linear4bit takes the place of a layer, and nothing copies the layer's weight into it"
    assert findings(CODE, replaced()) == [("error", MADE, message)]


@pytest.mark.parametrize(
    "line",
    [
        "new.weight = bnb.nn.Params4bit(child.weight.data, requires_grad=False)",
        "new.load_state_dict(child.state_dict())",
        "new.weight.data.copy_(child.weight)",
    ],
)
def test_look_alikes(line):
    assert findings(CODE, replaced(line)) == []


def test_a_real_new_layer_has_other_weights():
    old = torch.nn.Linear(64, 64)

    assert not torch.equal(bnb.nn.Linear4bit(64, 64).weight.data, old.weight.data)
