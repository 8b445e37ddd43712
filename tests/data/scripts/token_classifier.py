"""Names of people in 4 bits: the head has a bias, so that transformers packs it, and PEFT is to train a copy of it."""
import torch
from peft import LoraConfig, TaskType, get_peft_model, prepare_model_for_kbit_training
from transformers import AutoModelForTokenClassification, BitsAndBytesConfig, Trainer, TrainingArguments

bnb = BitsAndBytesConfig(  # fault: KB528
    load_in_4bit=True,
    bnb_4bit_quant_type="nf4",
    bnb_4bit_compute_dtype=torch.bfloat16,
)
model = AutoModelForTokenClassification.from_pretrained("Qwen/Qwen2.5-7B", num_labels=9, quantization_config=bnb)
model = prepare_model_for_kbit_training(model, gradient_checkpointing_kwargs={"use_reentrant": False})  # fault: KB104
model = get_peft_model(model, LoraConfig(task_type=TaskType.TOKEN_CLS, r=16, target_modules=["q_proj", "v_proj"]))
args = TrainingArguments("out", bf16=True, gradient_checkpointing=True, label_names=["labels"])
Trainer(model=model, args=args, train_dataset=data).train()
