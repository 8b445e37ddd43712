import torch
from peft import LoraConfig, get_peft_model, prepare_model_for_kbit_training
from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig, Trainer, TrainingArguments

tokenizer = AutoTokenizer.from_pretrained("org/base")
tokenizer.add_tokens(["<think>", "</think>"])
bnb = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.bfloat16)
model = AutoModelForCausalLM.from_pretrained("org/base", quantization_config=bnb)
model.resize_token_embeddings(len(tokenizer))  # fault: KB622
model = prepare_model_for_kbit_training(model, gradient_checkpointing_kwargs={"use_reentrant": False})
model = get_peft_model(model, LoraConfig(r=8, target_modules="all-linear"))
Trainer(model=model, args=TrainingArguments("o", bf16=True), train_dataset=data).train()
