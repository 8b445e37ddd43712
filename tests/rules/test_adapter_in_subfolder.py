from __future__ import annotations

import peft
import pytest
import tiny
from script_cases import LOADED, TRAINED, findings

CODE = "KB335"
NAMED = "model = get_peft_model(model, LoraConfig(target_modules=['q_proj']), adapter_name='mine')\n"
SAVE = "model.save_pretrained('out')\n"
LOAD = "model = PeftModel.from_pretrained(base, 'out')\n"
TOLD = "the adapters are saved in out/mine, as they are named mine: out holds no adapter_config.json"


def said(*parts):
    body = LOADED + "".join(parts[:-1]) + LOADED.replace("model =", "base =") + parts[-1]
    return [(severity, message) for severity, _, message in findings(CODE, body)]


@pytest.mark.parametrize("save", [SAVE, "trainer = " + TRAINED.replace(".train()", "") + "trainer.save_model('out')\n"])
def test_a_load_above_the_folder_of_a_named_adapter_is_an_error(save):
    assert said(NAMED, save, LOAD) == [("error", TOLD)]


def test_a_load_without_a_base_is_an_error_too():
    assert said(
        NAMED, SAVE, "from peft import AutoPeftModelForCausalLM\nother = AutoPeftModelForCausalLM.from_pretrained('out')\n"
    ) == [("error", TOLD)]


@pytest.mark.parametrize(
    "parts",
    [
        (NAMED, SAVE, LOAD.replace("'out'", "'out/mine'")),
        (NAMED, SAVE, LOAD.replace("'out'", "'out', subfolder='mine'")),
        (NAMED, SAVE, LOAD.replace("'out'", "'earlier'")),
        (NAMED.replace(", adapter_name='mine'", ""), SAVE, LOAD),
        (NAMED.replace("'mine'", "'default'"), SAVE, LOAD),
        (NAMED, "model.add_adapter('default', LoraConfig(target_modules=['q_proj']))\n" + SAVE, LOAD),
        (NAMED, "if keep:\n    " + SAVE, LOAD),
    ],
)
def test_adapters_that_are_where_they_are_looked_for(parts):
    assert said(*parts) == []


def test_peft_saves_a_named_adapter_in_a_folder_of_its_name(tmp_path):
    config = peft.LoraConfig(target_modules=["q_proj"])
    peft.get_peft_model(tiny.load(), config, adapter_name="mine").save_pretrained(tmp_path)

    with pytest.raises(ValueError, match=r"Can't find 'adapter_config\.json'"):
        peft.PeftModel.from_pretrained(tiny.load(), tmp_path)
    assert peft.PeftModel.from_pretrained(tiny.load(), tmp_path / "mine").active_adapter == "default"
