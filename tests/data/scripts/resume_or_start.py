"""One script for a first run and for going on; the second branch forgets that adapters load frozen."""
import argparse

import torch
from peft import LoraConfig, PeftModel, get_peft_model, prepare_model_for_kbit_training
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, Trainer, TrainingArguments

parser = argparse.ArgumentParser()
parser.add_argument("--resume-from", default=None)
parser.add_argument("--rank", type=int, default=16)
args = parser.parse_args()

bnb = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.bfloat16)
model = AutoModelForCausalLM.from_pretrained("google/gemma-2-2b", quantization_config=bnb, attn_implementation="eager")
model = prepare_model_for_kbit_training(model, gradient_checkpointing_kwargs={"use_reentrant": False})  # fault: KB104
if args.resume_from:
    model = PeftModel.from_pretrained(model, args.resume_from)  # fault: KB202
else:
    model = get_peft_model(model, LoraConfig(r=args.rank, target_modules="all-linear"))
Trainer(model=model, args=TrainingArguments("gemma", bf16=True), train_dataset=data).train()
