"""Rule KB322: repacked-by-evaluation."""

from __future__ import annotations

import dataclasses

import datasets
import peft
import pytest
import tiny
import torch
import transformers
from bitsandbytes.functional import has_avx512bf16

import kbitlint
from kbitlint.context import TrainingContext
from kbitlint.model.inspect.walk import collect
from kbitlint.registry import select

CODE = "KB322"
REPACKS = pytest.mark.skipif(not has_avx512bf16(), reason="bitsandbytes repacks weights on CPUs with AVX512-BF16 only")


def trainer_of(folder, family, **settings):
    data = datasets.Dataset.from_dict({"input_ids": [list(range(2, 10))] * 4, "labels": [list(range(2, 10))] * 4})
    options = {
        "max_steps": 2,
        "per_device_train_batch_size": 2,
        "save_strategy": "no",
        "eval_strategy": "steps",
        "eval_steps": 1,
    }
    base = peft.prepare_model_for_kbit_training(tiny.load(family), gradient_checkpointing_kwargs={"use_reentrant": False})
    return transformers.Trainer(
        model=peft.get_peft_model(base, peft.LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM")),
        args=transformers.TrainingArguments(str(folder), use_cpu=True, report_to=[], **(options | settings)),
        train_dataset=data,
        eval_dataset=data,
    )


def told(trainer):
    return [(v.severity.value, v.evidence["biased"] > 0) for v in kbitlint.check(trainer, select=CODE).violations]


SAVED = {"save_strategy": "steps", "save_steps": 1}


@REPACKS
@pytest.mark.parametrize(
    ("family", "settings", "found", "raises"),
    [
        ("opt", {}, [("error", True)], True),
        ("llama", {}, [("warning", False)], False),
        ("opt", {"eval_strategy": "epoch", "max_steps": 3}, [("error", True)], True),
        ("opt", {"eval_on_start": True, "eval_strategy": "no"}, [("error", True)], True),
        ("opt", SAVED, [], False),
        ("opt", {"eval_steps": 2}, [], False),
        ("opt", {"eval_strategy": "no"}, [], False),
    ],
    ids=["biases", "no biases", "by epoch", "at the start", "saved after it", "at the end", "never"],
)
def test_an_evaluation_between_steps_is_judged_as_the_training_ends(tmp_path, family, settings, found, raises):
    trainer = trainer_of(tmp_path, family, **settings)

    assert told(trainer) == found
    if raises:
        with pytest.raises(RuntimeError, match="a view of a leaf Variable that requires grad"):
            trainer.train()
    else:
        trainer.train()


@REPACKS
def test_without_biases_the_gradients_behind_the_layer_are_others():
    model = tiny.with_lora(tiny.load())
    first = next(name for name, parameter in model.named_parameters() if parameter.requires_grad and "lora_B" in name)
    gradients = []
    for _ in range(2):
        tiny.step(model)
        gradients.append(model.get_parameter(first).grad.clone())
        model.zero_grad()
        with torch.no_grad():
            model.eval()(torch.tensor([[2, 3, 4]]))

    assert not torch.allclose(*gradients, rtol=0.1)


def test_layers_that_repack_on_another_machine_are_told_from_their_flag():
    model = tiny.load()
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = True
    facts = collect(model)
    (rule,) = select([CODE], [], {})

    assert all(layer.repacks for layer in facts.quantized)
    context = TrainingContext(evaluates=True)
    assert [v.severity.value for v in rule.check_model(facts, context)] == ["warning"]
    assert list(rule.check_model(facts, dataclasses.replace(context, evaluates=False))) == []
    assert not any(layer.repacks for layer in collect(tiny.load(kind="int8")).quantized)
