"""The checkpoint is quantized as it is stored, so no config is passed."""
from peft import LoraConfig, get_peft_model, prepare_model_for_kbit_training
from transformers import AutoModelForCausalLM, Trainer, TrainingArguments

model = AutoModelForCausalLM.from_pretrained("unsloth/llama-3-8b-bnb-4bit", device_map="auto")
model = prepare_model_for_kbit_training(model, gradient_checkpointing_kwargs={"use_reentrant": False})  # fault: KB104
model = get_peft_model(model, LoraConfig(r=8))
Trainer(model=model, args=TrainingArguments("o", bf16=True), train_dataset=data).train()
