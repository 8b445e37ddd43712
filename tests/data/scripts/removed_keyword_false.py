"""In full precision, with a keyword that transformers 5 does not take any more, whatever its value."""
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, Trainer, TrainingArguments

model = AutoModelForCausalLM.from_pretrained(
    "mistralai/Mistral-7B-v0.1",
    load_in_8bit=False,  # fault: KB522
    dtype=torch.bfloat16,
    device_map={"": 0},
)
model = get_peft_model(model, LoraConfig(r=8, target_modules="all-linear"))
Trainer(model=model, args=TrainingArguments("out", bf16=True, gradient_checkpointing=True), train_dataset=data).train()
