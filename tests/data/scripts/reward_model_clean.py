"""A reward model on 4 bits; the task type makes PEFT train the head."""
import torch
from peft import LoraConfig, TaskType
from transformers import AutoModelForSequenceClassification, BitsAndBytesConfig
from trl import RewardConfig, RewardTrainer

bnb = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.bfloat16)
model = AutoModelForSequenceClassification.from_pretrained("Qwen/Qwen2.5-7B", num_labels=1, quantization_config=bnb)
model.config.pad_token_id = 151643
config = LoraConfig(task_type=TaskType.SEQ_CLS, r=16, target_modules="all-linear", modules_to_save=["score"])
trainer = RewardTrainer(model=model, args=RewardConfig("out", bf16=True), train_dataset=data, peft_config=config)
trainer.train()
