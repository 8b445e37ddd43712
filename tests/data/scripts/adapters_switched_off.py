"""Compared with the base first, and the adapters are left off."""
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, Trainer, TrainingArguments

bnb = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.bfloat16)
model = AutoModelForCausalLM.from_pretrained("org/base", quantization_config=bnb)
model = get_peft_model(model, LoraConfig(r=16, target_modules="all-linear"))
model.disable_adapter_layers()  # fault: KB202
trainer = Trainer(model, TrainingArguments("out", bf16=True, gradient_checkpointing=True), train_dataset=data)
trainer.train()
