import os

from transformers import Trainer, TrainingArguments
from transformers.trainer_utils import get_last_checkpoint

from helper import build, dataset

model, tokenizer = build("tiny-llama")
args = TrainingArguments(
    "out", max_steps=2, save_steps=1, save_total_limit=2, per_device_train_batch_size=2, logging_steps=1, report_to="none", use_cpu=True
)
last = get_last_checkpoint(args.output_dir) if os.path.isdir(args.output_dir) else None
trainer = Trainer(model, args, train_dataset=dataset(tokenizer), processing_class=tokenizer)
result = trainer.train(resume_from_checkpoint=last)
trainer.save_model()
trainer.save_state()
metrics = result.metrics
metrics["train_samples"] = len(trainer.train_dataset)
trainer.log_metrics("train", metrics)
trainer.save_metrics("train", metrics)
last = get_last_checkpoint(args.output_dir)
print("last checkpoint", last, os.path.join(str(last), "trainer_state.json"))
args.max_steps = 3
again = Trainer(model, args, train_dataset=dataset(tokenizer), processing_class=tokenizer)
again.train(resume_from_checkpoint=True)
print(again.state.global_step)
