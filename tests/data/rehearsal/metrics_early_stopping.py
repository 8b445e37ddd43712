import json

import numpy as np
import torch
from datasets import load_dataset
from peft import LoraConfig, TaskType, get_peft_model, prepare_model_for_kbit_training
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BitsAndBytesConfig,
    DataCollatorWithPadding,
    EarlyStoppingCallback,
    Trainer,
    TrainingArguments,
)

tokenizer = AutoTokenizer.from_pretrained("tiny-llama")
bnb = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_compute_dtype=torch.float32)
model = AutoModelForSequenceClassification.from_pretrained("tiny-llama", num_labels=2, quantization_config=bnb, device_map={"": "cpu"})
model.config.pad_token_id = tokenizer.pad_token_id
model = prepare_model_for_kbit_training(model)
model = get_peft_model(model, LoraConfig(r=4, task_type=TaskType.SEQ_CLS, target_modules=["q_proj"]))
data = load_dataset("json", data_files="data.jsonl", split="train").select_columns(["text", "label"])
data = data.map(lambda row: tokenizer(row["text"], truncation=True, max_length=64), remove_columns=["text"])
split = data.train_test_split(test_size=4, seed=1)


def compute_metrics(eval_pred):
    logits, labels = eval_pred
    predictions = np.argmax(logits, axis=-1)
    right = (predictions == labels).astype(float)
    true_positive = int(((predictions == 1) & (labels == 1)).sum())
    precision = true_positive / max(int((predictions == 1).sum()), 1)
    return {"accuracy": right.mean(), "precision": precision}


trainer = Trainer(
    model=model,
    args=TrainingArguments(
        output_dir="out", per_device_train_batch_size=2, max_steps=2, eval_strategy="steps", eval_steps=1, save_steps=1,
        logging_steps=1, load_best_model_at_end=True, metric_for_best_model="accuracy", greater_is_better=True,
        report_to="none", use_cpu=True,
    ),
    train_dataset=split["train"],
    eval_dataset=split["test"],
    data_collator=DataCollatorWithPadding(tokenizer),
    compute_metrics=compute_metrics,
    callbacks=[EarlyStoppingCallback(early_stopping_patience=3)],
)
result = trainer.train()
trainer.log_metrics("train", result.metrics)
trainer.save_metrics("train", result.metrics)
trainer.save_state()
metrics = trainer.evaluate()
print(f"accuracy {metrics['eval_accuracy']:.3f} precision {metrics['eval_precision']:.3f} loss {metrics['eval_loss']:.3f}")
print("best", trainer.state.best_metric, trainer.state.best_model_checkpoint)
prediction = trainer.predict(split["test"])
classes = prediction.predictions.argmax(-1)
print("wrong", int((classes != prediction.label_ids).sum()), prediction.metrics["test_accuracy"])
with open("metrics.json", "w") as file:
    json.dump({key: float(value) for key, value in metrics.items()}, file, indent=2)
