from __future__ import annotations

import datasets
import pytest
import tiny
from peft import LoraConfig
from trl_trainers import PAIR, tokenizer

import kbitlint
from kbitlint.integrations.trainer import KbitlintCallback

trl = pytest.importorskip("trl")
CODE = "KB711"


@pytest.fixture
def trainer(tmp_path):
    """Return a function that makes a DPOTrainer with LoRA on a tiny nf4 model."""

    def make(reference, model=None):
        args = trl.DPOConfig(str(tmp_path), use_cpu=True, bf16=True, report_to="none", max_steps=1, save_strategy="no")
        data = datasets.Dataset.from_list([PAIR] * 4)
        config = LoraConfig(r=4, target_modules=["q_proj"], task_type="CAUSAL_LM")
        return trl.DPOTrainer(
            model or tiny.load(), reference, args=args, train_dataset=data, processing_class=tokenizer(), peft_config=config
        )

    return make


def found(target):
    report = kbitlint.check(target, select=CODE, trace=False)
    assert not report.crashes
    return [(v.severity.value, v.evidence["nbytes"]) for v in report.violations]


def test_a_reference_that_is_the_base_again_is_flagged_with_its_bytes_and_gives_the_same_logits(trainer):
    copy = tiny.load()
    made = trainer(copy)
    nbytes = sum(parameter.numel() * parameter.element_size() for parameter in copy.parameters())

    assert found(made) == [("warning", nbytes)]
    batch = {"input_ids": tiny.torch.arange(1, 9)[None]}
    with made.model.disable_adapter():
        own = made.model.eval()(**batch).logits
    assert tiny.torch.equal(own, copy.eval()(**batch).logits)


def test_the_model_without_its_adapters_is_the_reference(trainer):
    assert found(trainer(None)) == []


def test_another_model_is_no_copy(trainer):
    assert found(trainer(tiny.load("llama (tied)"))) == []


def test_a_copy_with_adapters_is_no_copy_of_the_base_alone(trainer):
    """What the model gives without its adapters is another reference than the copy."""
    made = trainer(None)
    made.ref_model = tiny.with_lora(tiny.load())

    assert found(made) == []


def test_the_callback_knows_its_trainer(trainer):
    made = trainer(tiny.load())
    callback = KbitlintCallback(fail_on="never", select=CODE)
    made.add_callback(callback)
    made.train()

    assert [(v.code, v.severity.value) for v in callback.report.violations] == [(CODE, "warning")]


def test_a_model_alone_has_no_reference():
    assert kbitlint.check(tiny.load(), select=CODE).violations == ()
