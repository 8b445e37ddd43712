import os

import torch
from accelerate import Accelerator
from datasets import load_dataset
from peft import LoraConfig, get_peft_model
from torch.utils.data import DataLoader
from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig, default_data_collator, get_scheduler

MODEL = os.environ.get("BASE_MODEL", "tiny-llama")
accelerator = Accelerator(gradient_accumulation_steps=2, cpu=True)
tokenizer = AutoTokenizer.from_pretrained(MODEL)
model = AutoModelForCausalLM.from_pretrained(
    MODEL, quantization_config=BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_compute_dtype=torch.float32), device_map={"": "cpu"}
)
model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
model = get_peft_model(model, LoraConfig(r=4, target_modules=["q_proj", "o_proj"]))
raw = load_dataset("json", data_files="data.jsonl", split="train")


def encode(rows):
    out = tokenizer(rows["text"], padding="max_length", truncation=True, max_length=32)
    out["labels"] = [ids[:] for ids in out["input_ids"]]
    return out


data = raw.map(encode, batched=True, remove_columns=raw.column_names)
loader = DataLoader(data, batch_size=2, collate_fn=default_data_collator)
optimizer = torch.optim.AdamW(model.parameters(), lr=2e-4)
scheduler = get_scheduler("linear", optimizer, num_warmup_steps=0, num_training_steps=4)
model, optimizer, loader, scheduler = accelerator.prepare(model, optimizer, loader, scheduler)
model.train()
for step, batch in enumerate(loader):
    with accelerator.accumulate(model):
        outputs = model(**batch)
        accelerator.backward(outputs.loss)
        if accelerator.sync_gradients:
            accelerator.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        scheduler.step()
        optimizer.zero_grad()
    if step == 3:
        break
accelerator.wait_for_everyone()
accelerator.unwrap_model(model).save_pretrained("accelerated", save_function=accelerator.save)
