"""PEFT's preparation casts what it does not take for quantized, and quanto's weights refuse."""
import torch
from peft import LoraConfig, get_peft_model, prepare_model_for_kbit_training
from transformers import AutoModelForCausalLM, QuantoConfig, Trainer, TrainingArguments

model = AutoModelForCausalLM.from_pretrained("org/base", quantization_config=QuantoConfig("int8"), dtype=torch.bfloat16)
model = prepare_model_for_kbit_training(model)  # fault: KB221
model = get_peft_model(model, LoraConfig(r=8))
Trainer(model=model, args=TrainingArguments("out", bf16=True, gradient_checkpointing=True), train_dataset=data).train()
