import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, Trainer, TrainingArguments

bnb = BitsAndBytesConfig(load_in_8bit=True)
model = AutoModelForCausalLM.from_pretrained("org/base-13b", quantization_config=bnb)
model = PeftModel.from_pretrained(model, "first-stage")
model = model.merge_and_unload()  # fault: KB621
model.gradient_checkpointing_enable()
Trainer(model=model, args=TrainingArguments("second-stage"), train_dataset=data).train()  # fault: KB220
