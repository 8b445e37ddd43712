"""The keyword that transformers 5 dropped is passed where a flag asks for it."""
import argparse

from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, Trainer, TrainingArguments

parser = argparse.ArgumentParser()
parser.add_argument("--qlora", action="store_true")
args = parser.parse_args()

kwargs = {"device_map": {"": 0}, "dtype": "bfloat16"}
if args.qlora:
    kwargs["load_in_4bit"] = True  # fault: KB522
model = AutoModelForCausalLM.from_pretrained("org/base", **kwargs)
model = get_peft_model(model, LoraConfig(r=16, target_modules="all-linear"))
training = TrainingArguments("out", bf16=True, gradient_checkpointing=True)
Trainer(model=model, args=training, train_dataset=data).train()
