"""Reentrant checkpoints and a search for unused parameters: marked as ready twice."""
import torch
from peft import LoraConfig, get_peft_model, prepare_model_for_kbit_training
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, Trainer, TrainingArguments

bnb = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.bfloat16)
model = AutoModelForCausalLM.from_pretrained("huggyllama/llama-7b", quantization_config=bnb)
model = prepare_model_for_kbit_training(model)  # fault: KB401
model = get_peft_model(model, LoraConfig(r=64))
args = TrainingArguments("out", bf16=True, ddp_find_unused_parameters=True)
Trainer(model=model, args=args, train_dataset=data).train()
