"""The model comes from a module that is not here: nothing is known of it but what happens to it here."""
from peft import LoraConfig, get_peft_model
from transformers import Trainer, TrainingArguments

from mylab.models import load_quantized

model = load_quantized("org/base", bits=4)
model = get_peft_model(model, LoraConfig(r=8))
Trainer(model=model, args=TrainingArguments("o", bf16=True), train_dataset=data).train()
