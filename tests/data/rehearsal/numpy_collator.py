import numpy as np
import torch
from torch.utils.data import Dataset
from transformers import Trainer, TrainingArguments, set_seed

from helper import build

set_seed(7)
model, tokenizer = build("tiny-llama")


class Lines(Dataset):
    def __init__(self, path):
        import json

        with open(path) as file:
            self.rows = [json.loads(line) for line in file]
        lengths = np.array([len(row["text"]) for row in self.rows])
        print("lengths", lengths.mean(), np.percentile(lengths, [50, 95]))

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, index):
        row = self.rows[index]
        prompt = tokenizer(row["prompt"])["input_ids"]
        answer = tokenizer(row["completion"])["input_ids"] + [tokenizer.eos_token_id]
        return {"input_ids": prompt + answer, "labels": [-100] * len(prompt) + answer}


def collate(rows):
    longest = -(-max(len(row["input_ids"]) for row in rows) // 8) * 8
    ids = np.full((len(rows), longest), tokenizer.pad_token_id, dtype=np.int64)
    labels = np.full((len(rows), longest), -100, dtype=np.int64)
    mask = np.zeros((len(rows), longest), dtype=np.int64)
    for number, row in enumerate(rows):
        size = len(row["input_ids"])
        ids[number, :size], labels[number, :size], mask[number, :size] = row["input_ids"], row["labels"], 1
    return {"input_ids": torch.from_numpy(ids), "labels": torch.from_numpy(labels), "attention_mask": torch.from_numpy(mask)}


data = Lines("data.jsonl")
train, test = torch.utils.data.random_split(data, [12, 4])
trainer = Trainer(
    model=model, data_collator=collate, train_dataset=train, eval_dataset=test,
    args=TrainingArguments("out", max_steps=1, per_device_train_batch_size=4, remove_unused_columns=False, report_to="none", use_cpu=True),
)
trainer.train()
batch = next(iter(trainer.get_eval_dataloader()))
with torch.no_grad():
    outputs = model(**{key: value.to(model.device) for key, value in batch.items()})
predictions = outputs.logits.argmax(dim=-1)[:, :-1].cpu().numpy()
labels = batch["labels"][:, 1:].cpu().numpy()
kept = labels != -100
print("accuracy", float((predictions == labels)[kept].mean()), "loss", outputs.loss.item())
