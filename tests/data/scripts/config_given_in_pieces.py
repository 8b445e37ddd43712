"""Arguments that are put together before the call."""
import torch
from peft import LoraConfig, get_peft_model, prepare_model_for_kbit_training
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, Trainer, TrainingArguments

quant_kwargs = dict(load_in_4bit=True)
quant_kwargs["bnb_4bit_quant_type"] = "nf4"
quant_kwargs.update(bnb_4bit_compute_dtype=torch.bfloat16)
checkpoint_kwargs = {"use_reentrant": True}

model = AutoModelForCausalLM.from_pretrained("tiiuae/falcon-7b", quantization_config=BitsAndBytesConfig(**quant_kwargs))
model = prepare_model_for_kbit_training(
    model,
    gradient_checkpointing_kwargs=checkpoint_kwargs,  # note: KB401
)
model = get_peft_model(model, LoraConfig(r=8))
Trainer(model, TrainingArguments("falcon", bf16=True), train_dataset=data).train()
