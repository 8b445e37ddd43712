"""KB537: a merge whose result is dropped."""

from __future__ import annotations

import peft
import pytest
import tiny
import transformers
from safetensors.torch import load_file
from script_cases import LOADED as IN_4_BITS
from script_cases import fixed_text, flagged_lines

LOADED = (
    "model = AutoModelForCausalLM.from_pretrained(base, dtype='bfloat16')\nmodel = PeftModel.from_pretrained(model, adapter)\n"
)
SAVED = "model.save_pretrained(out)\n"
LOST = LOADED + "model.merge_and_unload()\n" + SAVED


@pytest.mark.parametrize(
    ("body", "found"),
    [
        (LOST, [("warning", "model.merge_and_unload()")]),
        (LOST.replace("unload()\n", "unload()  # in place\n"), [("warning", "model.merge_and_unload()  # in place")]),
        (LOADED + "model = model.merge_and_unload()\n" + SAVED, []),
        (LOADED + "merged = model.merge_and_unload()\nmerged.save_pretrained(out)\n", []),
        (LOADED + "model.merge_and_unload()\n", []),
        (LOADED + "model.merge_and_unload().save_pretrained(out)\n", []),
        (LOADED + "model.merge_and_unload()\nbase = model.get_base_model()\nbase.save_pretrained(out)\n", []),
        (LOADED + SAVED + "model.merge_and_unload()\n", []),
    ],
)  # fmt: skip
def test_a_dropped_result_is_reported_where_the_model_is_saved(body, found):
    assert flagged_lines("KB537", body) == found


def test_the_fix_keeps_the_result(tmp_path):
    assert fixed_text("KB537", LOST, tmp_path) == LOST.replace("model.merge", "model = model.merge")


def test_what_is_saved_has_no_tensors(tmp_path):
    model = peft.get_peft_model(tiny.load(kind="none"), peft.LoraConfig(target_modules=["q_proj"]))
    model.merge_and_unload()
    model.save_pretrained(tmp_path)

    assert load_file(tmp_path / "adapter_model.safetensors") == {}


QUANTIZED = IN_4_BITS + "trainer = SFTTrainer(model, SFTConfig('out'), peft_config=LoraConfig())\ntrainer.train()\n"
FAST = "fast = trainer.model.merge_and_unload()\nfast.generate(**prompt)\n"
KEPT = "trainer.save_model('adapter')\n"


@pytest.mark.parametrize(
    ("body", "found"),
    [
        (QUANTIZED + FAST + KEPT, [("warning", KEPT.strip())]),
        (QUANTIZED + "model = trainer.model\nmodel = model.merge_and_unload()\n" + KEPT, [("warning", KEPT.strip())]),
        (LOADED + "merged = model.merge_and_unload()\n" + SAVED, [("warning", SAVED.strip())]),
        (LOADED + "base = model.unload()\n" + SAVED, [("warning", SAVED.strip())]),
        (QUANTIZED + KEPT + FAST, []),
        (QUANTIZED + FAST.replace("fast", "trainer.model") + KEPT, []),
        (QUANTIZED + FAST + "trainer.model = fast\n" + KEPT, []),
        (QUANTIZED + FAST + "fast.save_pretrained('merged')\n", []),
        (QUANTIZED + FAST + "second = SFTTrainer(fast, SFTConfig('out'))\nsecond.train()\nsecond.save_model('full')\n", []),
        (LOADED + "merged = model.merge_and_unload()\nmodel = merged\nmodel.save_pretrained(out)\n", []),
        (LOADED + "model = PeftModel.from_pretrained(model.unload(), out)\nmodel.save_pretrained(again)\n", []),
    ],
)  # fmt: skip
def test_an_adapter_that_is_saved_after_its_merge_is_empty(body, found):
    assert flagged_lines("KB537", body) == found


def test_a_trainer_saves_no_tensors_after_a_merge(tmp_path):
    model = peft.get_peft_model(tiny.load(kind="nf4"), peft.LoraConfig(target_modules=["q_proj"]))
    trainer = transformers.Trainer(model=model, args=transformers.TrainingArguments(tmp_path, use_cpu=True))
    trainer.model.merge_and_unload()
    trainer.save_model(tmp_path / "adapter")

    assert load_file(tmp_path / "adapter" / "adapter_model.safetensors") == {}
