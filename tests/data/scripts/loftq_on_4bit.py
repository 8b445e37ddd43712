"""LoftQ is meant to be given the float base; here it decomposes a column of bytes."""
import torch
from peft import LoftQConfig, LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, Trainer, TrainingArguments

bnb = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.bfloat16)
model = AutoModelForCausalLM.from_pretrained("org/base", quantization_config=bnb)
config = LoraConfig(
    r=16,
    init_lora_weights="loftq",  # fault: KB620
    loftq_config=LoftQConfig(loftq_bits=4),
    target_modules="all-linear",
)
model = get_peft_model(model, config)
Trainer(model, TrainingArguments("out", bf16=True, gradient_checkpointing=True), train_dataset=data).train()
