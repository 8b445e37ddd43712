"""`unload` gives the bare base back."""
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, Trainer, TrainingArguments

bnb = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.bfloat16)
model = AutoModelForCausalLM.from_pretrained("org/base", quantization_config=bnb)
model = get_peft_model(model, LoraConfig(r=16, target_modules="all-linear"))
model = model.unload()
args = TrainingArguments("out", bf16=True, gradient_checkpointing=True)
Trainer(model, args, train_dataset=data).train()  # fault: KB220
