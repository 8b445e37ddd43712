import torch
from peft import PeftModel, prepare_model_for_kbit_training
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, Trainer, TrainingArguments

base = AutoModelForCausalLM.from_pretrained(
    "meta-llama/Llama-3.1-8B",
    quantization_config=BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.bfloat16
    ),
)
base = prepare_model_for_kbit_training(base, gradient_checkpointing_kwargs={"use_reentrant": False})  # fault: KB104
model = PeftModel.from_pretrained(base, "runs/first/adapter", is_trainable=True)
Trainer(model=model, args=TrainingArguments("runs/second", bf16=True), train_dataset=data).train()
