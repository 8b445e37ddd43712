import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

model = AutoModelForCausalLM.from_pretrained("org/base", dtype=torch.bfloat16, device_map="auto")
model = get_peft_model(model, LoraConfig(r=128, init_lora_weights="pissa", target_modules="all-linear"))
model.save_pretrained("residual")
