import numpy as np
import torch
from datasets import load_dataset
from peft import LoraConfig, TaskType, get_peft_model, prepare_model_for_kbit_training
from transformers import (AutoModelForSequenceClassification, AutoTokenizer, BitsAndBytesConfig, DataCollatorWithPadding, Trainer,
                          TrainingArguments)

tokenizer = AutoTokenizer.from_pretrained("tiny-llama")
model = AutoModelForSequenceClassification.from_pretrained(
    "tiny-llama", num_labels=2, device_map={"": "cpu"},
    quantization_config=BitsAndBytesConfig(load_in_8bit=True, llm_int8_skip_modules=["score"]),
)
model.config.pad_token_id = tokenizer.pad_token_id
model = prepare_model_for_kbit_training(model)
model = get_peft_model(model, LoraConfig(task_type=TaskType.SEQ_CLS, r=4, target_modules=["q_proj", "v_proj"]))
raw = load_dataset("json", data_files="data.jsonl", split="train")
tokenized = raw.map(lambda rows: tokenizer(rows["text"], truncation=True, max_length=48), batched=True)
tokenized = tokenized.rename_column("label", "labels").select_columns(["input_ids", "attention_mask", "labels"])


def compute_metrics(prediction):
    logits, labels = prediction
    return {"accuracy": float((np.argmax(logits, axis=-1) == labels).mean())}


trainer = Trainer(
    model=model,
    args=TrainingArguments("cls", max_steps=1, per_device_train_batch_size=2, report_to="none", use_cpu=True),
    train_dataset=tokenized, eval_dataset=tokenized,
    data_collator=DataCollatorWithPadding(tokenizer), compute_metrics=compute_metrics,
)
trainer.train()
print(trainer.evaluate())
