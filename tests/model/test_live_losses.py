"""Where the logits of a live Trainer live, beside what a real step of it allocates."""

from __future__ import annotations

import pytest
import tiny
import torch
import transformers
from peft import LoraConfig
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import kbitlint
from kbitlint.audit.run import context_of
from kbitlint.memory_result import OFF
from kbitlint.model.memory.step_memory import measure
from kbitlint.step_plan import Loss, StepPlan

trl_trainers = pytest.importorskip("trl_trainers", reason="TRL is not installed")

#: so large that the tile of a step is no larger part of it
WIDE = 80_000


def wide():
    """Return a quantized model with a wide vocabulary."""
    config = transformers.LlamaConfig(
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        vocab_size=WIDE,
        pad_token_id=0,
        tie_word_embeddings=False,
    )
    return transformers.LlamaForCausalLM(config).requires_grad_(requires_grad=False)


def trainer_of(folder, **settings):
    model = wide()
    further = {"model": model, "peft_config": LoraConfig(r=4, target_modules="all-linear")}
    return trl_trainers.build("SFTTrainer", folder, **further, gradient_checkpointing=False, **settings)


class Widest(TorchDispatchMode):
    """Records the most rows of any tensor that is as wide as the vocabulary."""

    def __init__(self):
        super().__init__()
        self.rows = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):  # torch's signature
        found = function(*args, **(kwargs or {}))
        for tensor in tree_leaves(found):
            if isinstance(tensor, torch.Tensor) and tensor.dim() > 1 and tensor.shape[-1] == WIDE:
                self.rows = max(self.rows, tensor.numel() // WIDE)
        return found


def test_the_loss_of_a_live_sft_trainer_runs_in_tiles_as_its_real_step_does(tmp_path):
    trainer = trainer_of(tmp_path)
    model, batch = trainer.model.train(), next(iter(trainer.get_train_dataloader()))
    rows = batch["input_ids"].numel()

    with Widest() as tiles:
        trainer.compute_loss(model, dict(batch)).backward()
    with Widest() as whole:
        model(**batch).loss.backward()

    assert tiles.rows == 0
    assert whole.rows >= rows
    assert loss_of(trainer) == "fused"


def test_tiles_take_less_than_whole_logits_on_the_model_of_a_live_trainer(tmp_path):
    trainer = trainer_of(tmp_path)
    context = kbitlint.TrainingContext(autocast_dtype="float32", batch_size=2, seq_len=16)
    told = {
        loss: measure("", trainer.model, context, StepPlan(loss=loss), modes=(OFF,)).steps[OFF]
        for loss in (Loss.FUSED, Loss.FULL)
    }

    assert told[Loss.FULL].peak - told[Loss.FUSED].peak >= 4 * 2 * 15 * WIDE
    assert told[Loss.FULL].activations > 0
    assert told[Loss.FUSED].activations > 0


def test_the_report_of_a_live_trainer_takes_its_settings(tmp_path):
    report = kbitlint.memory(trainer_of(tmp_path, optim="paged_adamw_8bit", gradient_accumulation_steps=4))
    asked = kbitlint.memory(trainer_of(tmp_path, optim="paged_adamw_8bit"), loss="full", optimizer="sgd")

    assert (report.plan.loss, report.plan.optimizer, report.plan.accumulation) == (Loss.FUSED, "paged_adamw_8bit", 4)
    assert (asked.plan.loss, asked.plan.optimizer, asked.plan.accumulation) == (Loss.FULL, "sgd", 1)
    assert "loss in tiles without logits" in str(report)


def loss_of(trainer):
    return context_of(trainer, kbitlint.TrainingContext()).loss


def test_a_loss_that_needs_whole_logits_is_full(tmp_path):
    smoothed = trainer_of(tmp_path, label_smoothing_factor=0.1)
    own = trainer_of(tmp_path)
    own.compute_loss_func = lambda outputs, labels, num_items_in_batch=None: outputs.logits.sum()  # its signature

    assert (loss_of(smoothed), loss_of(own)) == ("full", "full")


def test_transformers_trainer_holds_whole_logits_unless_liger_fuses_them(tmp_path):
    def plain(**settings):
        arguments = transformers.TrainingArguments(output_dir=str(tmp_path), use_cpu=True, report_to=[])
        trainer = transformers.Trainer(tiny.with_lora(tiny.load()), arguments)
        for name, value in settings.items():  # the Trainer refuses them where Liger is not installed
            setattr(trainer.args, name, value)
        return trainer

    assert loss_of(plain()) == "full"
    assert loss_of(plain(use_liger_kernel=True)) == "fused"
    assert loss_of(plain(use_liger_kernel=True, liger_kernel_config={"fused_linear_cross_entropy": False})) == "full"


def test_a_model_by_itself_says_nothing_about_its_loop():
    assert loss_of(tiny.load()) is None
    assert torch.is_grad_enabled()
