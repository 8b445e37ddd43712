from __future__ import annotations

import peft
import pytest
import tiny
from peft import LoraConfig, get_peft_model
from script_cases import ADAPTED, LOADED, findings

import kbitlint

CODE = "KB631"
CONFIG = {"r": 4, "target_modules": ["q_proj"], "init_lora_weights": False}


def found(model):
    return [(v.at.path, v.severity.value, v.evidence["levels"]) for v in kbitlint.check(model, select=CODE).violations]


def test_adapters_around_adapters_are_an_error_and_some_never_learn():
    model = get_peft_model(get_peft_model(tiny.load(), LoraConfig(**CONFIG)), LoraConfig(**CONFIG), adapter_name="second")

    assert found(model) == [("", "error", 2)]
    assert tiny.step(model).missing


def test_adapters_around_those_of_transformers_are_an_error():
    model = tiny.load()
    model.add_adapter(LoraConfig(**CONFIG))
    assert found(model) == []

    assert found(get_peft_model(model, LoraConfig(**{**CONFIG, "target_modules": ["k_proj"]}), adapter_name="b")) == [
        ("", "error", 2)
    ]


def test_a_second_adapter_beside_the_first_is_not_flagged():
    model = get_peft_model(tiny.load(), LoraConfig(**CONFIG))
    model.add_adapter("second", LoraConfig(**CONFIG))
    model.set_adapter("second")

    assert found(model) == []
    assert tiny.step(model).arrived


def test_unloaded_adapters_leave_no_level_behind():
    model = get_peft_model(tiny.load(), LoraConfig(**CONFIG)).unload()

    assert found(get_peft_model(model, LoraConfig(**CONFIG))) == []
    assert kbitlint.check(tiny.load(), select=CODE).skips[0].reason == "no adapters are attached yet"


def test_a_script_that_attaches_twice_is_flagged_at_the_second_call():
    second = "model = get_peft_model(model, LoraConfig(r=16))\n"
    (one,) = findings(CODE, LOADED + ADAPTED + second)
    assert one[:2] == ("error", second.strip())

    assert findings(CODE, LOADED + ADAPTED) == []
    assert findings(CODE, LOADED + ADAPTED + "model = model.merge_and_unload()\n" + second) == []
    assert findings(CODE, LOADED + "if flag:\n    " + ADAPTED + second) == []


class TestLoadedIntoAdapted:
    """``PeftModel.from_pretrained`` on a model that has adapters."""

    MESSAGE = "the model has adapters already: the saved ones wrap them, and their weights match no module"
    LOAD = "model = PeftModel.from_pretrained(model, 'folder')\n"

    def test_the_saved_weights_are_not_loaded(self, tmp_path):
        config = peft.LoraConfig(task_type="CAUSAL_LM", target_modules=["q_proj"])
        model = peft.get_peft_model(tiny.load("llama", kind="none"), config)
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.data.fill_(0.5)
        model.save_pretrained(tmp_path)

        twice = peft.PeftModel.from_pretrained(peft.get_peft_model(tiny.load("llama", kind="none"), config), tmp_path)

        assert all(parameter.eq(0).all() for name, parameter in twice.named_parameters() if "lora_B" in name)
        assert findings("KB631", LOADED + ADAPTED + self.LOAD) == [("error", self.LOAD.strip(), self.MESSAGE)]

    @pytest.mark.parametrize(
        "body",
        [
            "peft_model = get_peft_model(model, LoraConfig())\nother = PeftModel.from_pretrained(model, 'folder')\n",
            ADAPTED + "model = model.merge_and_unload()\nmodel = PeftModel.from_pretrained(model, 'folder')\n",
            "model = PeftModel.from_pretrained(model, 'folder')\n",
        ],
    )
    def test_the_base_itself_or_a_merged_model_is_clean(self, body):
        assert findings("KB631", LOADED + body) == []

    @pytest.mark.parametrize(
        "load",
        [
            "model = trainer.model.base_model\nmodel = PeftModel.from_pretrained(model, 'out')\n",
            "model = PeftModel.from_pretrained(trainer.model.base_model, 'out')\n",
        ],
    )
    def test_the_tuner_is_not_the_base(self, load):
        trained = "trainer = SFTTrainer(model, args=SFTConfig('o'), peft_config=LoraConfig())\ntrainer.train()\n"
        line = load.strip().splitlines()[-1]

        assert findings("KB631", LOADED + trained + load) == [("error", line, self.MESSAGE)]
        assert findings("KB631", LOADED + trained + load.replace("base_model", "get_base_model()")) == []

    def test_the_saved_weights_match_nothing_inside_of_a_tuner(self, tmp_path):
        config = peft.LoraConfig(task_type="CAUSAL_LM", target_modules=["q_proj"])
        model = peft.get_peft_model(tiny.load("llama", kind="none"), config)
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.data.fill_(0.5)
        model.save_pretrained(tmp_path)

        with pytest.warns(UserWarning, match="Found missing adapter keys"):
            loaded = peft.PeftModel.from_pretrained(model.base_model, tmp_path)

        assert isinstance(loaded.merge_and_unload(), peft.LoraModel)
