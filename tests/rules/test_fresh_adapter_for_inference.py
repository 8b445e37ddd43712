"""KB547: adapters that are made from a saved config, and whose weights are not read."""

from __future__ import annotations

import peft
import pytest
import tiny
import torch
from script_cases import LOADED, TRAINED, findings

ATTACH = "config = LoraConfig.from_pretrained('out')\nmodel = get_peft_model(model, config)\n"
ASK = "model.generate(**inputs)\n"
MESSAGE = "the adapter is new: its config is read from a folder, and its weights are not"


def said(body):
    return [(severity, message) for severity, _, message in findings("KB547", body)]


def test_such_a_model_answers_as_its_base(tmp_path):
    trained = peft.get_peft_model(
        tiny.load("llama", kind="none"), peft.LoraConfig(task_type="CAUSAL_LM", target_modules=["q_proj"])
    )
    for name, parameter in trained.named_parameters():
        if "lora_B" in name:
            parameter.data.fill_(0.5)
    trained.save_pretrained(tmp_path)

    fresh = peft.get_peft_model(tiny.load("llama", kind="none"), peft.LoraConfig.from_pretrained(tmp_path))
    loaded = peft.PeftModel.from_pretrained(tiny.load("llama", kind="none"), tmp_path)
    ids = torch.arange(8)[None]
    with torch.no_grad():
        base = tiny.load("llama", kind="none").eval()(input_ids=ids).logits

        assert torch.equal(fresh.eval()(input_ids=ids).logits, base)
        assert not torch.equal(loaded.eval()(input_ids=ids).logits, base)
    assert said(LOADED + ATTACH + ASK) == [("error", MESSAGE)]


@pytest.mark.parametrize(
    "body",
    [
        ATTACH + TRAINED + ASK,
        ATTACH + "model.load_adapter('out', adapter_name='default')\n" + ASK,
        ATTACH + "from peft import set_peft_model_state_dict\nset_peft_model_state_dict(model, state)\n" + ASK,
        "model = get_peft_model(model, LoraConfig(r=8))\n" + ASK,
        "model = PeftModel.from_pretrained(model, 'out')\n" + ASK,
        ATTACH,
    ],
)
def test_a_model_that_is_trained_or_loaded_is_clean(body):
    assert said(LOADED + body) == []
