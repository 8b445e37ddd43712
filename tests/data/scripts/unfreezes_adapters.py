"""Unfreezes by name what the preparation has frozen."""
import torch
from peft import LoraConfig, get_peft_model, prepare_model_for_kbit_training
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, Trainer, TrainingArguments

bnb = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.bfloat16)
model = AutoModelForCausalLM.from_pretrained("facebook/opt-1.3b", quantization_config=bnb)
model = get_peft_model(model, LoraConfig(r=8))
model = prepare_model_for_kbit_training(model, gradient_checkpointing_kwargs={"use_reentrant": False})
for name, parameter in model.named_parameters():
    if "lora_" in name:
        parameter.requires_grad = True
Trainer(model=model, args=TrainingArguments("opt", bf16=True), train_dataset=data).train()
