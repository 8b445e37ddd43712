"""The same with the head left unquantized."""
import torch
from peft import LoraConfig, TaskType, get_peft_model, prepare_model_for_kbit_training
from transformers import AutoModelForTokenClassification, BitsAndBytesConfig, Trainer, TrainingArguments

bnb = BitsAndBytesConfig(
    load_in_4bit=True,
    bnb_4bit_quant_type="nf4",
    llm_int8_skip_modules=["score", "classifier"],
    bnb_4bit_compute_dtype=torch.bfloat16,
)
model = AutoModelForTokenClassification.from_pretrained("mistralai/Mistral-7B-v0.3", num_labels=9, quantization_config=bnb)
model = prepare_model_for_kbit_training(model, gradient_checkpointing_kwargs={"use_reentrant": False})
model = get_peft_model(model, LoraConfig(task_type=TaskType.TOKEN_CLS, r=16, target_modules=["q_proj", "v_proj"]))
args = TrainingArguments("out", bf16=True, gradient_checkpointing=True, label_names=["labels"])
Trainer(model=model, args=args, train_dataset=data).train()
