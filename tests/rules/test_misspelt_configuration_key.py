"""KB536: keys that a program does not know."""

from __future__ import annotations

import pytest
from script_cases import fixed_text, flagged_lines

AXOLOTL = "base_model: a/b\nload_in_4bit: true\nadapter: qlora\nmicro_batch_size: 2\ngradient_checkpointing: true\n"
TRL = '{"model_name_or_path": "a/b", "use_peft": true, "load_in_4bits": true, "lora_r": 8}\n'


@pytest.mark.parametrize(
    ("old", "new", "found"),
    [
        ("load_in_4bit", "load_in_4bits", [("warning", "load_in_4bits: true")]),
        ("gradient_checkpointing", "gradient_checkpoint", [("warning", "gradient_checkpoint: true")]),
        ("load_in_4bit", "load_in_4bit", []),
        ("micro_batch_size", "my_size", []),
        ("micro_batch_size: 2", "micro_batch_size: 2\nload_in_4bits: true", []),
    ],
)
def test_a_key_that_resembles_a_known_one_is_reported(old, new, found):
    text = AXOLOTL.replace(old, new, 1) if "my_size" not in new else AXOLOTL.replace(old, new) + "val_set_size: 0\n"

    assert flagged_lines("KB536", text, suffix=".yaml") == found


def test_a_program_that_refuses_the_key_makes_an_error():
    assert flagged_lines("KB536", TRL, suffix=".json") == [("error", TRL.strip())]


def test_the_fix_renames_the_key(tmp_path):
    wrong = AXOLOTL.replace("load_in_4bit", "load_in_4bits")

    assert fixed_text("KB536", wrong, tmp_path, suffix=".yaml") == AXOLOTL


def test_a_script_has_no_keys():
    assert flagged_lines("KB536", "model = AutoModelForCausalLM.from_pretrained('a/b', load_in_4bits=True)\n") == []
