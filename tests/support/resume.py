"""Folders that a real Trainer saves of a tiny nf4 model with LoRA, and runs that resume from them."""

from __future__ import annotations

import functools
import shutil
import tempfile
from pathlib import Path

import tiny
import torch
import transformers

ROWS = [{"input_ids": torch.arange(16), "labels": torch.arange(16)} for _ in range(8)]


def trainer(folder, targets="all-linear", *, steps=2, **settings):
    """Return a Trainer of a new model, which saves in its second step."""
    torch.manual_seed(0)
    model = tiny.with_lora(tiny.prepared(), target_modules=targets)
    args = transformers.TrainingArguments(
        output_dir=str(folder),
        use_cpu=True,
        report_to=[],
        max_steps=steps,
        save_steps=2,
        disable_tqdm=True,
        learning_rate=0.1,
        warmup_steps=100,
        **settings,
    )
    return transformers.Trainer(model=model, args=args, train_dataset=ROWS)


@functools.cache
def _saved(targets, only_model):
    folder = Path(tempfile.mkdtemp())
    trainer(folder, list(targets) or "all-linear", save_only_model=only_model).train()
    return folder / "checkpoint-2"


def saved(folder, *targets, only_model=False):
    """Return a copy of checkpoint-2 of a run in a folder."""
    return Path(shutil.copytree(_saved(targets, only_model), folder / "checkpoint-2"))


def resumed(checkpoint, *targets):
    """Return a Trainer that has made two further steps from a checkpoint."""
    made = trainer(checkpoint.parent / "resumed", list(targets) or "all-linear", steps=4)
    made.train(resume_from_checkpoint=str(checkpoint))
    return made
