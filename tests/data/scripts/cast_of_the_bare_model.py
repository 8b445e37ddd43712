import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, BitsAndBytesConfig

model = AutoModelForCausalLM.from_pretrained(
    "org/base", quantization_config=BitsAndBytesConfig(load_in_8bit=True), dtype=torch.float16
)
model = model.to(torch.bfloat16)  # fault: KB122
model = get_peft_model(model, LoraConfig(r=4))
