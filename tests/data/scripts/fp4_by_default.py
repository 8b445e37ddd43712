import torch
from peft import LoraConfig, get_peft_model, prepare_model_for_kbit_training
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, Trainer, TrainingArguments

bnb = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_compute_dtype=torch.bfloat16)  # note: KB520
model = AutoModelForCausalLM.from_pretrained("EleutherAI/pythia-6.9b", quantization_config=bnb)
model = prepare_model_for_kbit_training(model, gradient_checkpointing_kwargs={"use_reentrant": False})
model = get_peft_model(model, LoraConfig(target_modules=["query_key_value"]))
Trainer(model=model, args=TrainingArguments("pythia", bf16=True), train_dataset=data).train()
