"""Adapters that were loaded frozen: their parameters are collected first, then unfrozen."""
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, Trainer, TrainingArguments

quantization = BitsAndBytesConfig(
    load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.bfloat16
)
model = AutoModelForCausalLM.from_pretrained("Qwen/Qwen2-7B", quantization_config=quantization)
model = PeftModel.from_pretrained(model, "out/stage1")
lora_params = [p for n, p in model.named_parameters() if "lora" in n]
for p in lora_params:
    p.requires_grad = True
trainer = Trainer(model=model, args=TrainingArguments("out", bf16=True, gradient_checkpointing=True), train_dataset=ds)
trainer.train()
