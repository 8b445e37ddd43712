"""An encoder's classifier has a bias, and is packed with the rest."""
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForSequenceClassification, BitsAndBytesConfig, Trainer, TrainingArguments

config = BitsAndBytesConfig(load_in_8bit=True)  # fault: KB528
model = AutoModelForSequenceClassification.from_pretrained("FacebookAI/roberta-large", quantization_config=config)
model = get_peft_model(model, LoraConfig(task_type="SEQ_CLS", r=8, target_modules=["query", "value"]))
Trainer(model=model, args=TrainingArguments("out", bf16=True, gradient_checkpointing=True), train_dataset=data).train()
