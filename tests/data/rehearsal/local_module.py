from helper import build, dataset
from transformers import Trainer, TrainingArguments

if __name__ == "__main__":
    model, tokenizer = build("tiny-llama")
    trainer = Trainer(model=model, args=TrainingArguments(output_dir="out", max_steps=1, report_to="none", use_cpu=True), train_dataset=dataset(tokenizer))
    trainer.train()
