from __future__ import annotations

import json

import pytest
from script_cases import ADAPTED, PREPARED, TRAINED, findings, fixed_text, flagged_lines

from kbitlint.api import check, fix

LIST = "bnb = BitsAndBytesConfig(load_in_4bit=True, llm_int8_skip_modules=['vision_tower'])\n"


def test_a_list_replaces_the_default_that_spares_the_head():
    assert findings("KB523", LIST) == [
        ("warning", LIST.strip(), "the output head is quantized too: the skip list replaces the default one")
    ]


def test_a_packed_head_cannot_be_saved_as_a_module_to_train():
    (found,) = findings("KB523", LIST + "config = LoraConfig(modules_to_save=['lm_head'])\n")

    assert (found[0], found[2].endswith("modules_to_save cannot train a packed head")) == ("error", True)


def test_the_fix_adds_it(tmp_path):
    assert fixed_text("KB523", LIST, tmp_path) == LIST.replace("['vision_tower']", "['vision_tower', \"lm_head\"]")


def test_a_list_that_is_no_literal_is_shown_only(tmp_path):
    script = "names = ['vision_tower']\n" + LIST.replace("['vision_tower']", "names")

    assert flagged_lines("KB523", script) == [("warning", script.split("\n")[1])]
    assert fixed_text("KB523", script, tmp_path) == script


@pytest.mark.parametrize("names", ["['a', 'lm_head']", "['model.score']", "[]", "names", "None", "[1]"])
def test_look_alikes(names):
    assert findings("KB523", LIST.replace("['vision_tower']", names)) == []


def config(tmp_path, **further):
    quantization = {"quant_method": "bitsandbytes", "load_in_4bit": True, "llm_int8_skip_modules": ["vision_tower"]}
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"model_type": "llama", "quantization_config": quantization, **further}))
    return path


def test_a_tied_head_fails_in_the_first_forward_pass(tmp_path):
    tied = check(str(config(tmp_path, tie_word_embeddings=True)), select="KB523").violations
    untied = check(str(config(tmp_path)), select="KB523").violations

    assert [v.severity.value for v in (*tied, *untied)] == ["error", "warning"]


def test_the_key_of_config_json_is_fixed_in_place(tmp_path):
    path = config(tmp_path)
    before = path.read_text()

    fix(str(path), select="KB523", unsafe=True)

    assert path.read_text() == before.replace('["vision_tower"]', '["vision_tower", "lm_head"]')


@pytest.mark.parametrize("names", [["lm_head"], [], None])
def test_config_look_alikes(tmp_path, names):
    path = tmp_path / "config.json"
    quantization = {"quant_method": "bitsandbytes", "load_in_4bit": True, "llm_int8_skip_modules": names}
    path.write_text(json.dumps({"model_type": "llama", "quantization_config": quantization}))

    assert check(str(path), select="KB523").violations == ()


TASK = "from transformers import AutoModel, AutoModelForQuestionAnswering\n" + LIST


@pytest.mark.parametrize(
    ("cls", "flagged"), [("AutoModelForCausalLM", 1), ("AutoModelForQuestionAnswering", 0), ("AutoModel", 0)]
)
def test_models_without_an_output_head_have_none_to_spare(cls, flagged):
    assert (
        len(flagged_lines("KB523", TASK + f"model = {cls}.from_pretrained('org/base', quantization_config=bnb)\n")) == flagged
    )


LOADS = "model = AutoModelForCausalLM.from_pretrained('google/gemma-2-2b', quantization_config=bnb)\n"


def test_a_tied_head_in_a_script_fails_in_the_first_step_of_a_loop_and_of_a_trainer():
    (found,) = findings("KB523", LIST + LOADS + PREPARED + ADAPTED + TRAINED)

    assert found[0] == "error"
    assert found[2].endswith("and a head that is tied to the embeddings is not packed, which its layer refuses")


def test_trl_may_read_the_weight_of_a_tied_head_without_its_layer():
    training = "SFTTrainer(model=model, args=SFTConfig(), train_dataset=data).train()\n"

    assert [one[0] for one in findings("KB523", LIST + LOADS + PREPARED + ADAPTED + training)] == ["warning"]


def test_a_packed_head_cannot_be_resized():
    named = LOADS.replace("google/gemma-2-2b", "org/base")
    (found,) = findings("KB523", LIST + named + "model.resize_token_embeddings(32008)\n")

    assert (found[0], found[2].endswith("and a packed head cannot be resized")) == ("error", True)
