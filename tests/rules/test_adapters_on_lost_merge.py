from __future__ import annotations

import pytest
import tiny
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from script_cases import LOADED, findings

CODE = "KB650"
BASE = "def base():\n" + "".join(f"    {line}\n" for line in LOADED.splitlines()) + "    return model\n"
SFT = "'out/sft'"
MERGED = f"    model = PeftModel.from_pretrained(base(), {SFT}).merge_and_unload()\n"
TRAINS = """\
    trainer = SFTTrainer(model=model, args=SFTConfig('tmp'), peft_config=LoraConfig(target_modules='all-linear'))
    trainer.train()
    trainer.save_model('out/dpo')
"""
TRAIN = "def train():\n" + MERGED + TRAINS
CHAT = "def chat():\n    model = PeftModel.from_pretrained(base(), 'out/dpo')\n    model.eval()\n"
LOST = "the adapters were trained on a merged model, and are loaded on the base without that merge"


def test_what_the_first_adapters_learned_is_lost():
    assert findings(CODE, BASE + TRAIN + CHAT) == [("error", CHAT.splitlines()[1].strip(), LOST)]


def test_a_script_of_one_piece():
    script = BASE + "if True:\n" + MERGED + TRAINS + "    again = PeftModel.from_pretrained(base(), 'out/dpo')\n"

    assert [message for _, _, message in findings(CODE, script)] == [LOST]


@pytest.mark.parametrize(
    "script",
    [
        pytest.param(TRAIN, id="not loaded"),
        pytest.param(TRAIN + CHAT.replace("'out/dpo'", "'out/other'"), id="other adapters"),
        pytest.param(
            TRAIN + "def chat():\n" + MERGED + "    model = PeftModel.from_pretrained(model, 'out/dpo')\n", id="merged again"
        ),
        pytest.param("def train():\n    model = base()\n" + TRAINS + CHAT, id="no merge"),
        pytest.param(
            "def train():\n    model = base()\n" + TRAINS + "    trainer.model.merge_and_unload()\n" + CHAT, id="merged after"
        ),
        pytest.param(TRAIN + CHAT.replace("base()", "AutoModelForCausalLM.from_pretrained('out/merged')"), id="another base"),
    ],
)
def test_look_alikes(script):
    assert findings(CODE, BASE + script) == []


def test_real_adapters_on_a_merge_do_not_hold_what_was_merged(tmp_path):
    tokens = torch.arange(8)[None]
    config = LoraConfig(target_modules=["q_proj", "v_proj"], init_lora_weights=False, r=8)
    torch.manual_seed(0)
    merged = get_peft_model(tiny.load(kind="none"), config).merge_and_unload()
    second = get_peft_model(merged, LoraConfig(target_modules=["q_proj"]))
    second.save_pretrained(tmp_path)
    plain = tiny.load(kind="none").eval()
    with torch.no_grad():
        before = plain(tokens).logits.clone()
        trained = second.eval()(tokens).logits
        loaded = PeftModel.from_pretrained(plain, tmp_path).eval()(tokens).logits

    assert torch.equal(loaded, before)
    assert not torch.allclose(loaded, trained)
