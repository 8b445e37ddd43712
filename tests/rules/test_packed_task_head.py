from __future__ import annotations

import pytest
from script_cases import IMPORTS, OLD, PREPARED, TRAINED, findings, fixed_text

TASKS = (
    IMPORTS
    + """\
from peft import TaskType
from transformers import (AutoModelForQuestionAnswering, AutoModelForSequenceClassification,
                          AutoModelForTokenClassification)
"""
)
CONFIG = "bnb = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type='nf4', bnb_4bit_compute_dtype=torch.bfloat16)\n"
MESSAGE = "the head is quantized too, and a packed head cannot be trained"


def script(kind="Token", name="'org/base'", adapters="task_type='TOKEN_CLS'", config=CONFIG):
    load = f"model = AutoModelFor{kind}.from_pretrained({name}, quantization_config=bnb)\n"
    return config + load + PREPARED + f"model = get_peft_model(model, LoraConfig(r=8, {adapters}))\n" + TRAINED


TOKENS, SEQUENCES, ANSWERS = "TokenClassification", "SequenceClassification", "QuestionAnswering"
ONLY_LM_HEAD = CONFIG.replace(")\n", ", llm_int8_skip_modules=['lm_head'])\n")


@pytest.mark.parametrize(
    "faulty",
    [
        pytest.param(script(TOKENS), id="tokens"),
        pytest.param(script(TOKENS, adapters="task_type=TaskType.TOKEN_CLS"), id="an enum"),
        pytest.param(script(TOKENS, adapters="modules_to_save=['classifier']"), id="saved by name"),
        pytest.param(script(TOKENS, config="bnb = BitsAndBytesConfig(load_in_8bit=True)\n"), id="in 8 bits"),
        pytest.param(script(TOKENS).replace("=bnb)", "=bnb if small else None)"), id="wherever the config is used"),
        pytest.param(script(ANSWERS, adapters="task_type='QUESTION_ANS'"), id="answers"),
        pytest.param(script(SEQUENCES, "'google-bert/bert-base-uncased'", "task_type='SEQ_CLS'"), id="an encoder"),
        pytest.param(script(SEQUENCES, "'roberta-large'", "task_type='SEQ_CLS'"), id="an encoder's short name"),
        pytest.param(script(SEQUENCES, "'m'", "task_type='SEQ_CLS'", ONLY_LM_HEAD), id="a list without the head"),
    ],
)
def test_a_head_that_is_packed_and_meant_to_train(faulty):
    line = faulty.split("\n")[0]

    assert findings("KB528", faulty, imports=TASKS) == [("error", line, MESSAGE)]
    assert findings("KB528", faulty, imports=TASKS, versions=OLD) == []


def test_a_peft_model_of_no_task_trains_no_head():
    plain = script(TOKENS).replace("get_peft_model(", "PeftModel(")

    assert findings("KB528", plain, imports=TASKS + "from peft import PeftModel\n") == []


def test_the_fix_names_the_head(tmp_path):
    after = CONFIG.replace(")\n", ", llm_int8_skip_modules=['classifier', 'score'])\n")

    assert fixed_text("KB528", script(TOKENS), tmp_path, imports=TASKS) == script(TOKENS, config=after)


def test_a_list_that_is_there_is_left_as_it_is(tmp_path):
    faulty = script(SEQUENCES, "name", "task_type='SEQ_CLS'", ONLY_LM_HEAD)

    assert fixed_text("KB528", faulty, tmp_path, imports=TASKS) == faulty


@pytest.mark.parametrize(
    "fine",
    [
        pytest.param(script(SEQUENCES, adapters="task_type='SEQ_CLS'"), id="a decoder, perhaps"),
        pytest.param(script(SEQUENCES, "name", "task_type='SEQ_CLS'"), id="an unknown model"),
        pytest.param(script(TOKENS, adapters="target_modules=['query']"), id="the head is not trained"),
        pytest.param(script(TOKENS, adapters="**config"), id="perhaps not trained"),
        pytest.param(script(TOKENS).replace("LoraConfig(r=8, task_type='TOKEN_CLS')", "config"), id="a config from elsewhere"),
        pytest.param(
            script(TOKENS, config=CONFIG.replace(")\n", ", llm_int8_skip_modules=['classifier'])\n")), id="the list names it"
        ),
        pytest.param(script(TOKENS, config=CONFIG.replace(")\n", ", llm_int8_skip_modules=names)\n")), id="an unknown list"),
        pytest.param(script(TOKENS, config=CONFIG.replace(")\n", ", llm_int8_skip_modules=[name])\n")), id="an unknown name"),
        pytest.param(script(TOKENS, config="bnb = HqqConfig()\n"), id="another method"),
        pytest.param(script(ANSWERS, "'answerdotai/ModernBERT-base'", "task_type='QUESTION_ANS'"), id="another head"),
        pytest.param(script(ANSWERS, "name", "task_type='QUESTION_ANS'"), id="answers of an unknown model"),
        pytest.param(script("CausalLM", adapters="task_type='TOKEN_CLS'"), id="no head for a task"),
        pytest.param(script(TOKENS).replace("=bnb)", "=None)"), id="not quantized"),
    ],
)
def test_look_alikes(fine):
    assert findings("KB528", fine, imports=TASKS + "from transformers import HqqConfig\n") == []


@pytest.mark.parametrize(
    "faulty",
    [
        pytest.param(script(TOKENS, "name"), id="tokens"),
        pytest.param(script(SEQUENCES, "name", "task_type='SEQ_CLS'", ONLY_LM_HEAD), id="a list without the head"),
    ],
)
def test_the_head_of_a_checkpoint_without_a_name_is_a_warning(faulty):
    message = f"{MESSAGE}, unless the checkpoint's class has a head of another name"

    assert findings("KB528", faulty, imports=TASKS) == [("warning", faulty.split("\n")[0], message)]


def test_layers_of_8_bits_that_keep_16_can_train_a_copy_of_the_head():
    kept = "bnb = BitsAndBytesConfig(load_in_8bit=True, llm_int8_has_fp16_weight=True)\n"

    assert findings("KB528", script(TOKENS, config=kept), imports=TASKS) == []
    assert (
        len(findings("KB528", script(TOKENS, config=kept.replace(", llm_int8_has_fp16_weight=True", "")), imports=TASKS)) == 1
    )


def test_transformers_own_method_trains_no_head_unless_it_is_named():
    attach = "model.add_adapter(LoraConfig(r=8, task_type='TOKEN_CLS'))\n"
    body = script(TOKENS).split("\n", 2)

    assert findings("KB528", "\n".join(body[:2]) + "\n" + attach, imports=TASKS) == []
    named = attach.replace("r=8", "r=8, modules_to_save=['classifier']")
    assert len(findings("KB528", "\n".join(body[:2]) + "\n" + named, imports=TASKS)) == 1


def test_a_head_that_is_spared_on_some_path_is_not_flagged():
    spared = CONFIG.replace(")\n", ", llm_int8_skip_modules=['classifier', 'score'] if careful else None)\n")

    assert findings("KB528", script(TOKENS, config=spared), imports=TASKS) == []


def test_a_config_without_a_field_for_saved_modules_trains_no_head():
    body = script(TOKENS).replace("LoraConfig(r=8, ", "TrainableTokensConfig(token_indices=[5], ")

    assert findings("KB528", body, imports=TASKS + "from peft import TrainableTokensConfig\n") == []
    lora = body.replace("TrainableTokensConfig(token_indices=[5], ", "IA3Config(")
    assert len(findings("KB528", lora, imports=TASKS + "from peft import IA3Config\n")) == 1


def test_a_list_that_lacks_the_head_is_the_place():
    config = "bnb = BitsAndBytesConfig(\n    load_in_4bit=True,\n    llm_int8_skip_modules=['lm_head'],\n)\n"
    faulty = script(SEQUENCES, "'m'", "task_type='SEQ_CLS'", config)

    assert findings("KB528", faulty, imports=TASKS) == [("error", "llm_int8_skip_modules=['lm_head'],", MESSAGE)]
