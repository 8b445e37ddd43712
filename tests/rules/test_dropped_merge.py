"""KB537: a merge whose result is dropped."""

from __future__ import annotations

import peft
import pytest
import tiny
from safetensors.torch import load_file
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
