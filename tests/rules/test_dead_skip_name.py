from __future__ import annotations

import pytest
import script_cases as written
import tiny

import kbitlint

CODE = "KB124"
LLAVA = "llava (vision-language)"

pytestmark = pytest.mark.skipif(not tiny.TRANSFORMERS_5, reason="transformers 4 compares every part of a path")


def found(model):
    return [(v.at.path, v.severity.value, v.evidence["packed"]) for v in kbitlint.check(model, select=CODE).violations]


def packed_below(model, name):
    return [path for path, module in model.named_modules() if type(module).__name__ == "Linear4bit" and name in path]


def test_a_name_without_its_beginning_spares_nothing():
    model = tiny.load(LLAVA, llm_int8_skip_modules=["vision_tower", "lm_head"])

    assert found(model) == [("model.vision_tower", "warning", len(packed_below(model, "vision_tower")))]
    assert packed_below(model, "vision_tower")


@pytest.mark.parametrize("name", ["model.vision_tower", ".*vision_tower", "model.vision_tower.encoder"])
def test_whole_paths_and_patterns_spare_what_they_name(name):
    model = tiny.load(LLAVA, llm_int8_skip_modules=[name, "lm_head"])

    assert found(model) == []
    assert packed_below(model, "vision_tower") == []


@pytest.mark.parametrize("name", ["lm_head", "k_proj", "model.layers.0", "embed_tokens", "norm"])
def test_names_of_layers_and_of_what_is_never_packed_are_not_flagged(name):
    assert found(tiny.load(llm_int8_skip_modules=[name, "lm_head"])) == []


def test_a_name_that_no_module_has_is_worth_knowing():
    assert found(tiny.load(llm_int8_skip_modules=["visual", "lm_head"])) == [("visual", "info", 0)]


def test_adapters_change_nothing():
    model = tiny.load(LLAVA, llm_int8_skip_modules=["vision_tower", "lm_head"])
    before = found(model)

    assert found(tiny.with_lora(model)) == before


def test_without_a_list_nothing_is_said():
    assert found(tiny.load()) == []
    assert kbitlint.check(tiny.load(kind="none"), select=CODE).skips[0].reason == "no layer is quantized"


SCRIPT = """\
bnb = BitsAndBytesConfig(load_in_4bit=True, llm_int8_skip_modules=['vision_tower', 'lm_head'])
model = AutoModelForImageTextToText.from_pretrained('llava-hf/llava-1.5-7b-hf', quantization_config=bnb)
"""
IMPORT = written.IMPORTS + "from transformers import AutoModelForImageTextToText\n"
LINE = SCRIPT.splitlines()[0]


def test_a_list_in_a_script_names_the_beginning_that_it_lacks(tmp_path):
    message = "no module's name starts with vision_tower, so nothing is left out: it is model.vision_tower"

    assert written.findings(CODE, SCRIPT, imports=IMPORT) == [("warning", LINE, message)]
    assert written.fixed_text(CODE, SCRIPT, tmp_path, imports=IMPORT) == SCRIPT.replace(
        "'vision_tower'", "'model.vision_tower'"
    )


def test_a_list_behind_a_name_is_shown_and_not_edited(tmp_path):
    script = "spared = ['vision_tower']\n" + SCRIPT.replace("['vision_tower', 'lm_head']", "spared")

    assert [severity for severity, *_ in written.findings(CODE, script, imports=IMPORT)] == ["warning"]
    assert written.fixed_text(CODE, script, tmp_path, imports=IMPORT) == script


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("'vision_tower'", "'model.vision_tower'"),
        ("llava-hf/llava-1.5-7b-hf'", "llava-hf/llava-1.5-7b-hf', trust_remote_code=True"),
        ("llava-hf/llava-1.5-7b-hf", "org/unknown"),
        ("['vision_tower', 'lm_head']", "names"),
        (", llm_int8_skip_modules=['vision_tower', 'lm_head']", ""),
        (", quantization_config=bnb", ""),
        ("['vision_tower', 'lm_head']", "['vision_tower'] if old else ['model.vision_tower']"),
    ],
)
def test_lists_in_scripts_that_may_be_right_are_not_flagged(old, new):
    assert written.findings(CODE, SCRIPT.replace(old, new), imports=IMPORT) == []


def test_transformers_4_compares_every_part_of_a_path_so_the_list_is_right():
    assert written.findings(CODE, SCRIPT, imports=IMPORT, versions=written.OLD) == []
