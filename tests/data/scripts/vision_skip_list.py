import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForImageTextToText, BitsAndBytesConfig, Trainer, TrainingArguments

bnb = BitsAndBytesConfig(
    load_in_4bit=True,
    bnb_4bit_quant_type="nf4",
    bnb_4bit_compute_dtype=torch.bfloat16,
    llm_int8_skip_modules=["vision_tower", "multi_modal_projector"],  # fault: KB523 # fault: KB124
)
model = AutoModelForImageTextToText.from_pretrained("llava-hf/llava-1.5-7b-hf", quantization_config=bnb)
model.gradient_checkpointing_enable()
model = get_peft_model(model, LoraConfig(r=8, target_modules=["q_proj", "v_proj"]))
Trainer(model=model, args=TrainingArguments("o", bf16=True), train_dataset=data).train()
