from __future__ import annotations

import datasets
import pytest
import tiny
import torch
import transformers
from peft import LoraConfig
from trl_trainers import PAIR, tokenizer

import kbitlint

trl = pytest.importorskip("trl")
CODE = "KB712"
IDS = torch.arange(1, 9)[None]


@pytest.fixture
def trainer(tmp_path):
    """Return a function that makes a DPOTrainer on a tiny Llama with biases."""
    torch.manual_seed(0)
    config = transformers.AutoConfig.from_pretrained(tiny.checkpoint(), attention_bias=True)
    transformers.LlamaForCausalLM._from_config(config, dtype=torch.bfloat16).save_pretrained(tmp_path / "base")

    def make(reference=None, beta=0.1, **lora):
        load = transformers.AutoModelForCausalLM.from_pretrained
        model = load(tmp_path / "base", quantization_config=tiny.quantization(), dtype=torch.bfloat16, device_map="cpu")
        args = trl.DPOConfig(
            str(tmp_path),
            use_cpu=True,
            bf16=True,
            report_to="none",
            max_steps=2,
            save_strategy="no",
            beta=beta,
            learning_rate=0.1,
        )
        data = datasets.Dataset.from_list([PAIR] * 4)
        config = LoraConfig(r=4, target_modules=["q_proj"], task_type="CAUSAL_LM", **lora)
        return trl.DPOTrainer(model, reference, args=args, train_dataset=data, processing_class=tokenizer(), peft_config=config)

    return make


def found(target):
    report = kbitlint.check(target, select=CODE, trace=False)
    assert not report.crashes
    return [(v.at.path, v.severity.value, v.evidence["parameters"]) for v in report.violations]


def reference_of(made):
    with torch.no_grad(), made.model.disable_adapter():
        return made.model.train()(IDS).logits.float()  # in eval mode bitsandbytes repacks for its CPU kernel


def test_biases_move_the_reference(trainer):
    made = trainer(bias="all")
    before = reference_of(made)

    assert found(made) == [("model.layers.0.self_attn.q_proj.base_layer.bias", "warning", 8)]
    made.train()
    assert (reference_of(made) - before).abs().max() > 1e-2


@pytest.mark.parametrize("lora", [{}, {"modules_to_save": ["lm_head"]}, {"trainable_token_indices": [3, 4]}])
def test_what_disabling_the_adapters_restores_is_not_flagged(trainer, lora):
    made = trainer(**lora)
    before = reference_of(made)

    assert found(made) == []
    made.train()
    assert torch.equal(reference_of(made), before)


def test_norms_that_were_unfrozen_by_hand_move_it_too(trainer):
    made = trainer()
    made.model.get_base_model().model.norm.weight.requires_grad = True

    assert found(made) == [("model.norm.weight", "warning", 1)]


def test_a_reference_model_of_its_own_does_not_move(trainer):
    assert found(trainer(tiny.load(), bias="all")) == []


def test_a_model_alone_has_no_reference():
    assert kbitlint.check(tiny.with_lora(tiny.load()), select=CODE).violations == ()


def test_a_trainer_without_a_reference_is_skipped(tmp_path):
    args = transformers.TrainingArguments(str(tmp_path), use_cpu=True, report_to=[], max_steps=1)
    data = [{"input_ids": IDS[0], "labels": IDS[0]}] * 3
    made = transformers.Trainer(tiny.with_lora(tiny.load()), args, train_dataset=data)

    assert [skip.reason for skip in kbitlint.check(made, select=CODE, trace=False).skips] == [
        "no trainer with adapters and a reference is at hand"
    ]
