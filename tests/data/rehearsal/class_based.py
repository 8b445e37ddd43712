import logging
import os
from pathlib import Path

import torch
import yaml
from datasets import load_dataset
from peft import LoraConfig, get_peft_model, prepare_model_for_kbit_training
from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig, DataCollatorForSeq2Seq, Trainer, TrainingArguments

HERE = Path(__file__).resolve().parent
logging.basicConfig(filename="training.log", level=logging.INFO)


class FineTuner:
    def __init__(self, config_path):
        with open(config_path) as stream:
            self.cfg = yaml.safe_load(stream)
        os.makedirs(self.cfg["output_dir"], exist_ok=True)
        self.tokenizer = AutoTokenizer.from_pretrained(self.cfg["model"])
        self.model = None

    def load(self):
        bnb = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_compute_dtype=torch.float32)
        model = AutoModelForCausalLM.from_pretrained(self.cfg["model"], quantization_config=bnb, device_map={"": "cpu"})
        model = prepare_model_for_kbit_training(model)
        self.model = get_peft_model(model, LoraConfig(**self.cfg["lora"]))
        return self

    def encode(self, row):
        ids = self.tokenizer(row["prompt"] + row["completion"], truncation=True, max_length=64)["input_ids"]
        return {"input_ids": ids, "attention_mask": [1] * len(ids), "labels": list(ids)}

    def fit(self):
        data = load_dataset("json", data_files=str(HERE / self.cfg["data"]), split="train")
        data = data.map(self.encode, remove_columns=data.column_names)
        args = TrainingArguments(output_dir=self.cfg["output_dir"], max_steps=1, per_device_train_batch_size=2, report_to="none", use_cpu=True)
        trainer = Trainer(self.model, args, train_dataset=data, data_collator=DataCollatorForSeq2Seq(self.tokenizer, padding=True))
        trainer.train()
        (Path(self.cfg["output_dir"]) / "done.txt").write_text("ok")
        logging.info("finished")


if __name__ == "__main__":
    FineTuner("config.yaml").load().fit()
