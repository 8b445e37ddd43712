"""Packed weights cannot require grad."""
import torch
from transformers import AutoModelForCausalLM, BitsAndBytesConfig

bnb = BitsAndBytesConfig(load_in_8bit=True)
model = AutoModelForCausalLM.from_pretrained("facebook/opt-1.3b", quantization_config=bnb)
for name, parameter in model.named_parameters():
    parameter.requires_grad = True  # fault: KB201
optimizer = torch.optim.AdamW(model.parameters())
