import torch
from peft import LoraConfig, get_peft_model, prepare_model_for_kbit_training
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, Trainer, TrainingArguments

bnb_config = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4")  # fault: KB502
model = AutoModelForCausalLM.from_pretrained("facebook/opt-6.7b", quantization_config=bnb_config, dtype=torch.float16)
model = prepare_model_for_kbit_training(model, gradient_checkpointing_kwargs={"use_reentrant": False})
model = get_peft_model(model, LoraConfig(r=8, task_type="CAUSAL_LM"))
Trainer(model=model, args=TrainingArguments("opt", fp16=True), train_dataset=data).train()
