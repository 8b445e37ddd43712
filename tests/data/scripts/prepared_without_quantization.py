"""The quantization config was dropped on the way, the preparation was not."""
import torch
from peft import LoraConfig, get_peft_model, prepare_model_for_kbit_training
from transformers import AutoModelForCausalLM, Trainer, TrainingArguments

model = AutoModelForCausalLM.from_pretrained("meta-llama/Llama-2-13b-hf", torch_dtype=torch.bfloat16)
model = prepare_model_for_kbit_training(model)  # fault: KB221
model = get_peft_model(model, LoraConfig(r=8))
Trainer(model=model, args=TrainingArguments("o", bf16=True), train_dataset=data).train()
