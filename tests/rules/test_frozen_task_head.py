from __future__ import annotations

import tiny
import torch
from peft import LoraConfig, get_peft_model

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
