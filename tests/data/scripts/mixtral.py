"""Experts are stacked in parameters, which bitsandbytes does not pack."""
import torch
from peft import LoraConfig
from transformers import AutoModelForCausalLM, BitsAndBytesConfig
from trl import SFTConfig, SFTTrainer

bnb = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.bfloat16)
model = AutoModelForCausalLM.from_pretrained(
    "mistralai/Mixtral-8x7B-Instruct-v0.1",
    quantization_config=bnb,  # fault: KB504
    dtype=torch.bfloat16,
)
SFTTrainer(model=model, args=SFTConfig("out"), train_dataset=data, peft_config=LoraConfig(r=16)).train()
