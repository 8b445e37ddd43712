"""KB609: the base of a PeftModel that is saved with the adapters in its layers."""

from __future__ import annotations

import peft
import pytest
import tiny
from script_cases import ADAPTED, LOADED, PREPARED, TRAINED, findings

MESSAGE = "the base is saved with the adapters in its layers, under names that from_pretrained does not find"
TRAINS = LOADED + PREPARED + ADAPTED + TRAINED


def said(body):
    return [(severity, message) for severity, _, message in findings("KB609", body)]


@pytest.mark.parametrize("inner", [lambda model: model.get_base_model(), lambda model: model.base_model])
def test_the_saved_names_are_not_those_that_from_pretrained_looks_for(tmp_path, inner):
    from safetensors import safe_open

    base = tiny.load("llama", kind="none")
    wanted = {name for name, _ in base.named_parameters() if "q_proj" in name}
    model = peft.get_peft_model(base, peft.LoraConfig(task_type="CAUSAL_LM", target_modules=["q_proj"]))
    inner(model).save_pretrained(tmp_path)
    with safe_open(tmp_path / "model.safetensors", "pt") as stored:
        names = set(stored.keys())

    assert wanted
    assert wanted & names == set()
    assert not (tmp_path / "adapter_config.json").exists()


@pytest.mark.parametrize(
    "save",
    [
        "base = model.get_base_model()\nbase.save_pretrained('merged')\n",
        "model.get_base_model().save_pretrained('merged')\n",
        "model.base_model.model.save_pretrained('merged')\n",
        "model.base_model.save_pretrained('merged')\n",
        "accelerator.unwrap_model(model).get_base_model().save_pretrained('merged')\n",
        "accelerator.unwrap_model(model.get_base_model()).save_pretrained('merged')\n",
        "whole = trainer.accelerator.unwrap_model(model)\nwhole.base_model.model.model.save_pretrained('merged')\n",
        "base = Accelerator().unwrap_model(model.base_model)\nbase.save_pretrained('merged')\n",
    ],
)
def test_a_base_with_adapters_in_it_is_an_error(save):
    assert said(TRAINS + save) == [("error", MESSAGE)]


@pytest.mark.parametrize(
    "save",
    [
        "model.save_pretrained('adapter')\n",
        "merged = model.merge_and_unload()\nmerged.save_pretrained('merged')\n",
        "model = model.merge_and_unload()\nmodel.save_pretrained('merged')\n",
        "base = model.get_base_model()\nmodel.save_pretrained('adapter')\n",
        "accelerator.unwrap_model(model).save_pretrained('adapter')\n",
        "model.merge_and_unload().base_model.save_pretrained('merged')\n",
    ],
)
def test_an_adapter_or_a_merged_model_is_clean(save):
    assert said(TRAINS + save) == []


OTHER_NAME = "adapted = get_peft_model(model, LoraConfig(task_type='CAUSAL_LM'))\n" + TRAINED.replace(
    "model=model", "model=adapted"
)
BY_TRAINER = (
    "trainer = SFTTrainer(model=model, peft_config=LoraConfig(task_type='CAUSAL_LM'), train_dataset=data)\ntrainer.train()\n"
)


@pytest.mark.parametrize(
    ("start", "save", "severity"),
    [
        (OTHER_NAME, "model.save_pretrained('adapter')\n", "error"),
        (BY_TRAINER, "model.save_pretrained('adapter')\n", "error"),
        (BY_TRAINER, "trainer.save_model('adapter')\nmodel.save_pretrained('adapter')\n", "warning"),
        (BY_TRAINER, "trainer.model.save_pretrained('adapter')\n", None),
        (BY_TRAINER, "model = trainer.model\nmodel.save_pretrained('adapter')\n", None),
        (OTHER_NAME, "adapted.save_pretrained('adapter')\n", None),
    ],
)
def test_the_name_of_a_base_that_was_wrapped_is_still_the_base(start, save, severity):
    assert said(LOADED + PREPARED + start + save) == [(severity, MESSAGE)] * (severity is not None)


def test_a_base_without_adapters_is_clean():
    assert said(LOADED + "model.save_pretrained('base')\n") == []
