"""Loops that accumulate gradients, with an Accelerator and by hand, as scripts."""

from __future__ import annotations

from script_cases import ADAPTED, LOADED, PREPARED

IMPORTS = """\
import torch
from accelerate import Accelerator
from peft import LoraConfig, get_peft_model, prepare_model_for_kbit_training
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, get_linear_schedule_with_warmup
"""
START = (
    LOADED + PREPARED + ADAPTED + "optimizer = torch.optim.AdamW(model.parameters(), lr=2e-4)\nepochs, accumulation = 2, 8\n"
)
SCHEDULE = "scheduler = get_linear_schedule_with_warmup(optimizer, 10, epochs * len(loader) // accumulation)\n"
PREPARE = "model, optimizer, loader, scheduler = acc.prepare(model, optimizer, loader, scheduler)\n"
WITH = """\
acc = Accelerator(gradient_accumulation_steps=8, mixed_precision="bf16")
{prepare}for epoch in range(epochs):
    for batch in loader:
        with acc.accumulate(model):
            loss = model(**batch).loss
            acc.backward(loss)
            acc.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            scheduler.step()
            optimizer.zero_grad()
"""
ACCELERATED = START + SCHEDULE + WITH.format(prepare=PREPARE)
HAND = (
    START
    + SCHEDULE
    + """\
for epoch in range(epochs):
    for step, batch in enumerate(loader):
        loss = model(**batch).loss / accumulation
        loss.backward()
        if (step + 1) % accumulation == 0:
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            scheduler.step()
            optimizer.zero_grad()
"""
)
