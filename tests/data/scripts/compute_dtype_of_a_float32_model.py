"""Everything is float32 on purpose: an old GPU without bfloat16."""
import torch
from peft import LoraConfig, get_peft_model, prepare_model_for_kbit_training
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, Trainer, TrainingArguments

bnb_config = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.float32)
model = AutoModelForCausalLM.from_pretrained("facebook/opt-1.3b", quantization_config=bnb_config, dtype=torch.float32)
model = prepare_model_for_kbit_training(model, gradient_checkpointing_kwargs={"use_reentrant": False})
model = get_peft_model(model, LoraConfig(r=8, task_type="CAUSAL_LM"))
Trainer(model=model, args=TrainingArguments("opt"), train_dataset=data).train()
