from __future__ import annotations

import pytest
import tiny
import torch
import transformers
from peft import LoraConfig, get_peft_model
from script_cases import IMPORTS, PREPARED, TRAINED, findings

import kbitlint

CODE = "KB204"


def classifier(**config):
    model = tiny.load("llama (classifier)")
    return get_peft_model(model, LoraConfig(r=4, target_modules=["q_proj"], **config))


def found(model):
    return [(v.at.path, v.severity.value, v.evidence) for v in kbitlint.check(model, select=CODE).violations]


def test_a_head_without_task_type_is_flagged_and_does_not_move():
    model = classifier()
    head = model.get_base_model().score.weight
    before = head.detach().clone()

    assert found(model) == [("score", "warning", {"task": "SequenceClassification", "parameters": 192})]
    assert tiny.step(model).trains
    torch.optim.AdamW(model.parameters(), lr=0.1).step()
    assert torch.equal(head, before)


def test_the_task_type_trains_a_copy():
    model = classifier(task_type="SEQ_CLS")

    assert found(model) == []
    assert any("score" in name for name in tiny.step(model).arrived)


def test_a_head_that_somebody_unfroze_is_not_flagged():
    model = classifier()
    model.get_base_model().score.weight.requires_grad_(True)

    assert found(model) == []


def test_where_nothing_trains_another_rule_says_so():
    model = classifier()
    model.requires_grad_(False)

    assert found(model) == []


def test_heads_of_other_tasks_are_found_by_their_class():
    import transformers

    config = transformers.BertConfig(hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32)
    for name, head in (("TokenClassification", "classifier"), ("QuestionAnswering", "qa_outputs")):
        model = getattr(transformers, f"BertFor{name}")(config)
        adapted = get_peft_model(model, LoraConfig(r=4, target_modules=["query"]))

        assert [(path, evidence["task"]) for path, _, evidence in found(adapted)] == [(head, name)]


def test_the_head_of_a_language_model_is_meant_to_be_frozen():
    assert found(tiny.with_lora(tiny.load())) == []


def test_without_adapters_the_rule_is_skipped():
    assert kbitlint.check(tiny.load("llama (classifier)"), select=CODE).skips[0].reason == "no adapters are attached yet"


LOAD = """\
from transformers import AutoModelForSequenceClassification, AutoModelForTokenClassification
from peft import TaskType
bnb = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.bfloat16)
model = AutoModelForSequenceClassification.from_pretrained("org/base", num_labels=2, quantization_config=bnb)
"""
CONFIG = "config = LoraConfig(r=8, target_modules=['q_proj'])\n"
ATTACH = "model = get_peft_model(model, config)\n"
SCRIPT = LOAD + PREPARED + CONFIG + ATTACH + TRAINED


@pytest.mark.parametrize(
    "config", [CONFIG, CONFIG.replace("target_modules=['q_proj']", "task_type='CAUSAL_LM'"), "config = LoraConfig(r=8)\n"]
)
def test_a_script_whose_config_names_neither_task_nor_head(config):
    assert findings(CODE, SCRIPT.replace(CONFIG, config)) == [
        (
            "warning",
            config.strip(),
            "the head of the task stays frozen: if the checkpoint had none, it is random and saved nowhere",
        )
    ]


def test_a_new_head_of_a_task_that_peft_does_not_know_is_frozen_too():
    """PEFT's guide to image classification names ``classifier`` in ``modules_to_save`` for this reason."""
    script = SCRIPT.replace("AutoModelForSequenceClassification.f", "AutoModelForImageClassification.f")
    assert findings(CODE, script, imports=IMPORTS) == [
        (
            "warning",
            CONFIG.strip(),
            "the head of the task stays frozen: if the checkpoint had none, it is random and saved nowhere",
        )
    ]

    sizes = {"num_hidden_layers": 1, "num_attention_heads": 2, "hidden_size": 32, "intermediate_size": 32, "image_size": 32}
    model = transformers.ViTForImageClassification(transformers.ViTConfig(num_labels=2, **sizes))
    adapted = get_peft_model(model, LoraConfig(r=8, target_modules=["q_proj"]))
    assert not any(p.requires_grad for name, p in adapted.named_parameters() if "classifier" in name)


@pytest.mark.parametrize(
    "script",
    [
        pytest.param(
            SCRIPT.replace("AutoModelForSequenceClassification.f", "AutoModelForImageClassification.f").replace(
                "num_labels=2, ", ""
            ),
            id="the checkpoint's own labels",
        ),
        pytest.param(SCRIPT.replace("r=8", "r=8, task_type='SEQ_CLS'"), id="the task by name"),
        pytest.param(SCRIPT.replace("r=8", "r=8, task_type=TaskType.SEQ_CLS"), id="the task as an enum"),
        pytest.param(SCRIPT.replace("r=8", "r=8, task_type=task"), id="an unknown task"),
        pytest.param(SCRIPT.replace("r=8", "TaskType.SEQ_CLS"), id="by position"),
        pytest.param(SCRIPT.replace("r=8", "r=8, modules_to_save=['score']"), id="the head by name"),
        pytest.param(SCRIPT.replace("['q_proj']", "'all-linear'"), id="adapters on the head too"),
        pytest.param(SCRIPT.replace("['q_proj']", "['q_proj', 'score']"), id="adapters on the head"),
        pytest.param(SCRIPT.replace("['q_proj']", "names"), id="adapters on unknown layers"),
        pytest.param(SCRIPT.replace("r=8", "**settings"), id="unknown settings"),
        pytest.param(SCRIPT.replace(ATTACH, f"{ATTACH}model.score.requires_grad_(True)\n"), id="unfrozen by hand"),
        pytest.param(
            SCRIPT.replace(
                ATTACH, f"{ATTACH}for n, p in model.named_parameters():\n    if 'score' in n: p.requires_grad = True\n"
            ),
            id="unfrozen in a loop",
        ),
        pytest.param(SCRIPT.replace(ATTACH, f"{ATTACH}unfreeze_head(model)\n"), id="unfrozen elsewhere"),
        pytest.param(SCRIPT.replace(TRAINED, ""), id="not trained here"),
        pytest.param(SCRIPT.replace("AutoModelForSequenceClassification.f", "AutoModelForCausalLM.f"), id="no such head"),
        pytest.param(SCRIPT.replace(CONFIG, "config = PrefixTuningConfig()\n"), id="no LoRA"),
        pytest.param(SCRIPT.replace(CONFIG, ""), id="a config from elsewhere"),
    ],
)
def test_scripts_that_look_alike(script):
    assert findings(CODE, script, imports=IMPORTS) == []


def test_a_config_that_names_the_task_on_some_path_is_not_flagged():
    named = "config = LoraConfig(r=8, task_type='SEQ_CLS' if known else None)\n"

    assert findings(CODE, SCRIPT.replace(CONFIG, named)) == []


def loop(condition, head="task_type='SEQ_CLS'", then="param.requires_grad = False"):
    load = "model = AutoModelForSequenceClassification.from_pretrained('org/base', quantization_config=bnb, num_labels=2)\n"
    attach = f"model = get_peft_model(model, LoraConfig(r=8, target_modules='all-linear', {head}))\n"
    inside = f"    if {condition}:\n        {then}\n" if condition else f"    {then}\n"
    imported = "from transformers import AutoModelForSequenceClassification\nbnb = BitsAndBytesConfig(load_in_8bit=True)\n"
    return imported + load + PREPARED + attach + "for name, param in model.named_parameters():\n" + inside


FREEZE, METHOD = "param.requires_grad = False", "param.requires_grad_(False)"
THAW = "for n, p in model.named_parameters():\n    if 'score' in n:\n        p.requires_grad = True\n"


@pytest.mark.parametrize(
    ("body", "line"),
    [
        (loop("'lora_' not in name") + TRAINED, FREEZE),
        (loop("not ('lora_A' in name or 'lora_B' in name)") + TRAINED, FREEZE),
        (loop("'lora_' in name", then=f"pass\n    else:\n        {METHOD}") + TRAINED, METHOD),
        (loop("", then="param.requires_grad = 'lora_' in name") + TRAINED, "param.requires_grad = 'lora_' in name"),
        (loop("", then="param.requires_grad = True if 'lora' in name else False") + TRAINED,
         "param.requires_grad = True if 'lora' in name else False"),
        (loop("'lora' not in name", "modules_to_save=['score']") + TRAINED, FREEZE),
        (loop("'lora_' not in name and 'modules_to_save' not in name") + TRAINED, None),
        (loop("'lora_' not in name and 'score' not in name", "modules_to_save=['score']") + TRAINED, None),
        (loop("'lora_' not in name and 'score' not in name") + TRAINED, None),
        (loop("'lora_' not in name", "task_type='CAUSAL_LM'") + TRAINED, None),
        (loop("wanted(name)") + TRAINED, None),
        (loop("'lora_' in name", then="param.requires_grad = True") + TRAINED, None),
        (loop("'lora_' not in name"), None),
        (loop("'lora_' not in name") + THAW + TRAINED, None),
    ],
)  # fmt: skip
def test_a_loop_that_freezes_by_name_freezes_the_trained_copy(body, line):
    said = [(where, message) for _, where, message in findings(CODE, body) if "by its name" in message]

    assert [where for where, _ in said] == ([line] if line else [])


def test_the_copy_is_frozen_by_such_a_loop():
    model = classifier(task_type="SEQ_CLS")
    for name, parameter in model.named_parameters():
        if "lora_" not in name:
            parameter.requires_grad = False

    assert [name for name, parameter in model.named_parameters() if "score" in name and parameter.requires_grad] == []
    assert "base_model.model.score.modules_to_save.default.weight" in dict(model.named_parameters())
