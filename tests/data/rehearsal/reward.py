import torch
from datasets import Dataset
from peft import LoraConfig, TaskType
from transformers import AutoModelForSequenceClassification, AutoTokenizer, BitsAndBytesConfig
from trl import RewardConfig, RewardTrainer

model = AutoModelForSequenceClassification.from_pretrained(
    "tiny-llama", num_labels=1, device_map={"": "cpu"},
    quantization_config=BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_compute_dtype=torch.float32),
)
tokenizer = AutoTokenizer.from_pretrained("tiny-llama")
model.config.pad_token_id = tokenizer.pad_token_id
pairs = Dataset.from_json("data.jsonl").select_columns(["chosen", "rejected"])
trainer = RewardTrainer(
    model=model,
    args=RewardConfig(output_dir="rm", per_device_train_batch_size=2, max_steps=1, report_to="none", use_cpu=True, bf16=False, max_length=64),
    processing_class=tokenizer,
    train_dataset=pairs,
    peft_config=LoraConfig(task_type=TaskType.SEQ_CLS, r=4, target_modules=["q_proj", "v_proj"], modules_to_save=["score"]),
)
trainer.train()
