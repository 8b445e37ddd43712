"""A Trainer that is made to evaluate a quantized model: its constructor refuses it all the same."""
import torch
from peft import LoraConfig, PeftModel, get_peft_model, prepare_model_for_kbit_training
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, Trainer, TrainingArguments

bnb = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.bfloat16)
model = AutoModelForCausalLM.from_pretrained("mistralai/Mistral-7B-v0.1", quantization_config=bnb)
args = TrainingArguments("out", bf16=True, gradient_checkpointing=True)
trainer = Trainer(model=model, args=args, eval_dataset=data)  # fault: KB220
print(trainer.evaluate())
