from __future__ import annotations

import pytest
import tiny
import torch
from peft import LoraConfig, get_peft_model
from script_cases import ADAPTED, LOADED, PREPARED, RANKED, TRAINED, findings, fixed_text, flagged_lines

CODE = "KB549"
READY = LOADED + PREPARED + ADAPTED
SFT = "trainer = SFTTrainer(model, args=SFTConfig('o'), peft_config=LoraConfig(target_modules='all-linear'))\ntrainer.train()\n"
UNLOAD = "merged = model.unload()\n"
PUSH = "merged.push_to_hub('me/tuned')\n"
SAVE = "merged.save_pretrained('tuned')\n"


def test_the_saved_base_has_learned_nothing():
    told = "unload() drops the adapters without a merge, and the base that is saved has learned nothing"

    assert findings(CODE, READY + TRAINED + UNLOAD + SAVE) == [("error", UNLOAD.strip(), told)]


@pytest.mark.parametrize(
    ("script", "severity"),
    [
        pytest.param(READY + RANKED + UNLOAD + PUSH, "error", id="pushed"),
        pytest.param(LOADED + SFT + UNLOAD.replace("model", "trainer.model") + PUSH, "error", id="attached by a trainer"),
        pytest.param(LOADED + "model = PeftModel.from_pretrained(model, 'a')\n" + UNLOAD + SAVE, "error", id="loaded"),
        pytest.param(READY + TRAINED + "model.save_pretrained('adapter')\n" + UNLOAD + SAVE, "warning", id="saved before"),
        pytest.param(
            READY + TRAINED + "if accelerator.is_main_process:\n    merged = model.unload()\n    " + SAVE,
            "error",
            id="on one rank",
        ),
    ],
)
def test_each_way_to_lose_the_adapters_is_seen(script, severity):
    assert [found for found, _ in flagged_lines(CODE, script)] == [severity]


@pytest.mark.parametrize(
    "script",
    [
        pytest.param(READY + TRAINED + "merged = model.merge_and_unload()\n" + SAVE, id="merged"),
        pytest.param(
            READY
            + TRAINED
            + "model = PeftModel.from_pretrained(model.unload(), 'a', is_trainable=True)\n"
            + TRAINED
            + "model.save_pretrained('b')\n",
            id="loaded into the base again",
        ),
        pytest.param(READY + UNLOAD + SAVE, id="nothing was learned"),
        pytest.param(READY + TRAINED + UNLOAD + "merged.generate()\n", id="not saved"),
        pytest.param(READY + TRAINED + "model.save_pretrained('adapter')\n", id="not unloaded"),
        pytest.param(
            READY + TRAINED + "base = model.unload()\nmodel = get_peft_model(base, LoraConfig())\nmodel.save_pretrained('b')\n"
        ),
    ],
)
def test_look_alikes(script):
    assert findings(CODE, script) == []


def test_the_fix_merges(tmp_path):
    plain = "model = AutoModelForCausalLM.from_pretrained('org/base', dtype=torch.bfloat16)\n" + ADAPTED + TRAINED
    fixed = fixed_text(CODE, plain + UNLOAD + SAVE, tmp_path)

    assert fixed == plain + UNLOAD.replace("unload()", "merge_and_unload()") + SAVE


def test_a_real_unload_gives_back_the_weights_as_they_were_loaded():
    base = {name: weight.clone() for name, weight in tiny.load(kind="none").state_dict().items()}
    unloaded = tiny.load(kind="none")
    model = get_peft_model(unloaded, LoraConfig(target_modules=["q_proj"], init_lora_weights=False))
    after = model.unload().state_dict()

    assert base.keys() == after.keys()
    assert all(torch.equal(base[name], after[name]) for name in base)
