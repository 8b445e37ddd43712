"""KB546: adapter files that are loaded with ``load_state_dict``."""

from __future__ import annotations

import peft
import pytest
import tiny
from safetensors.torch import load_file
from script_cases import ADAPTED, LOADED, findings

READ = "from safetensors.torch import load_file\nstate = load_file('out/adapter_model.safetensors')\n"
LOAD = "model.load_state_dict(state, strict=False)\n"


def said(body):
    return [(severity, line) for severity, line, _ in findings("KB546", body)]


def test_no_tensor_is_loaded(tmp_path):
    config = {"task_type": "CAUSAL_LM", "target_modules": ["q_proj"]}
    peft.get_peft_model(tiny.load("llama", kind="none"), peft.LoraConfig(**config)).save_pretrained(tmp_path)
    tensors = load_file(tmp_path / "adapter_model.safetensors")
    model = peft.get_peft_model(tiny.load("llama", kind="none"), peft.LoraConfig(**config))

    assert set(model.load_state_dict(tensors, strict=False).unexpected_keys) == set(tensors)
    assert said(LOADED + ADAPTED + READ + LOAD) == [("error", LOAD.strip())]


@pytest.mark.parametrize(
    "body",
    [
        ADAPTED + READ + "from peft import set_peft_model_state_dict\nset_peft_model_state_dict(model, state)\n",
        ADAPTED + "state = torch.load('whole_model.pt')\n" + LOAD,
        ADAPTED + READ + "model.load_state_dict(state)\n",
        READ + LOAD,
    ],
)
def test_other_files_or_functions_are_clean(body):
    assert said(LOADED + body) == []
