"""Somebody has measured it, and left it."""
import torch
from peft import LoraConfig, get_peft_model, prepare_model_for_kbit_training
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, Trainer, TrainingArguments

bnb = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.bfloat16)
model = AutoModelForCausalLM.from_pretrained("org/base", quantization_config=bnb)
model = prepare_model_for_kbit_training(model)  # kbitlint: ignore[KB401] single GPU, measured
model = get_peft_model(model, LoraConfig(r=8))
Trainer(model=model, args=TrainingArguments("o", bf16=True), train_dataset=data).train()
