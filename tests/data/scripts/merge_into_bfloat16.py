"""Trains in 4 bits, and merges into a fresh bfloat16 base."""
import torch
from peft import AutoPeftModelForCausalLM, LoraConfig, get_peft_model, prepare_model_for_kbit_training
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, Trainer, TrainingArguments

bnb = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.bfloat16)
model = AutoModelForCausalLM.from_pretrained("org/base", quantization_config=bnb)
model = prepare_model_for_kbit_training(model, gradient_checkpointing_kwargs={"use_reentrant": False})
model = get_peft_model(model, LoraConfig(r=8))
trainer = Trainer(model=model, args=TrainingArguments("o", bf16=True), train_dataset=data)
trainer.train()
trainer.save_model("adapter")
del model, trainer
torch.cuda.empty_cache()
model = AutoPeftModelForCausalLM.from_pretrained("adapter", dtype=torch.bfloat16, device_map="auto")
model = model.merge_and_unload()  # note: KB627
model.save_pretrained("merged", safe_serialization=True)
