import torch
from peft import LoHaConfig, TaskType, get_peft_model, prepare_model_for_kbit_training
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, Trainer, TrainingArguments

bnb = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.bfloat16)
model = AutoModelForCausalLM.from_pretrained("org/base", quantization_config=bnb)
model = prepare_model_for_kbit_training(model, gradient_checkpointing_kwargs={"use_reentrant": False})
config = LoHaConfig(r=16, target_modules=["q_proj", "v_proj"], task_type=TaskType.CAUSAL_LM)  # fault: KB629
model = get_peft_model(model, config)
Trainer(model, TrainingArguments("out", bf16=True), train_dataset=data).train()
