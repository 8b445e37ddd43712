"""LoRA on a bfloat16 base: nothing is quantized."""
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, Trainer, TrainingArguments

model = AutoModelForCausalLM.from_pretrained("Qwen/Qwen2.5-1.5B", dtype=torch.bfloat16)
model = get_peft_model(model, LoraConfig(r=16, target_modules="all-linear"))
args = TrainingArguments("o", bf16=True, gradient_checkpointing=True)
Trainer(model=model, args=args, train_dataset=data).train()
