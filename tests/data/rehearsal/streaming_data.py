from itertools import islice

from datasets import load_dataset
from transformers import DataCollatorForLanguageModeling, Trainer, TrainingArguments

from helper import build

model, tokenizer = build("tiny-llama")
stream = load_dataset("json", data_files="data.jsonl", split="train", streaming=True)
for row in islice(stream, 2):
    print(row["text"][:20])
stream = stream.shuffle(seed=3, buffer_size=8).map(lambda row: {"text": row["text"].upper() + tokenizer.eos_token})
stream = stream.map(lambda batch: tokenizer(batch["text"], truncation=True, max_length=48), batched=True, remove_columns=["text", "instruction", "output", "prompt", "completion", "chosen", "rejected", "label"])
test, train = stream.take(2), stream.skip(2)
trainer = Trainer(
    model=model, train_dataset=train, eval_dataset=list(test), data_collator=DataCollatorForLanguageModeling(tokenizer, mlm=False),
    args=TrainingArguments("out", max_steps=2, per_device_train_batch_size=2, report_to="none", use_cpu=True),
)
trainer.train()
print(trainer.evaluate()["eval_loss"])
