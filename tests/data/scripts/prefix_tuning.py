"""Prefix tuning hands its keys through the cache, which checkpointing would drop."""
import torch
from peft import PrefixTuningConfig, get_peft_model
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, Trainer, TrainingArguments

bnb = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.bfloat16)
model = AutoModelForCausalLM.from_pretrained("org/base", quantization_config=bnb)
model = get_peft_model(model, PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=20))
Trainer(model=model, args=TrainingArguments("o", bf16=True), train_dataset=data).train()
