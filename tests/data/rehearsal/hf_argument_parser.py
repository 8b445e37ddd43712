from dataclasses import dataclass, field
from typing import Optional

import torch
from datasets import load_dataset
from peft import LoraConfig, get_peft_model, prepare_model_for_kbit_training
from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig, HfArgumentParser, Trainer, TrainingArguments, set_seed


@dataclass
class ModelArguments:
    model_name_or_path: Optional[str] = field(default="tiny-llama")
    bits: int = field(default=4, metadata={"help": "How many bits to use."})
    lora_r: int = field(default=4)


@dataclass
class DataArguments:
    dataset: str = field(default="data.jsonl")
    source_max_len: int = field(default=48)


class Collator:
    def __init__(self, tokenizer, length):
        self.tokenizer, self.length = tokenizer, length

    def __call__(self, instances):
        texts = [f"{row['instruction']} {row['output']}" for row in instances]
        batch = self.tokenizer(texts, return_tensors="pt", padding="longest", truncation=True, max_length=self.length)
        labels = batch["input_ids"].clone()
        labels[batch["attention_mask"] == 0] = -100
        return {**batch, "labels": labels}


def get_model(args):
    model = AutoModelForCausalLM.from_pretrained(
        args.model_name_or_path,
        device_map={"": "cpu"},
        quantization_config=BitsAndBytesConfig(load_in_4bit=args.bits == 4, load_in_8bit=args.bits == 8, bnb_4bit_compute_dtype=torch.float32),
    )
    model = prepare_model_for_kbit_training(model)
    return get_peft_model(model, LoraConfig(r=args.lora_r, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM"))


def train():
    parser = HfArgumentParser((ModelArguments, DataArguments, TrainingArguments))
    model_args, data_args, training_args = parser.parse_args_into_dataclasses()
    set_seed(training_args.seed)
    model = get_model(model_args)
    tokenizer = AutoTokenizer.from_pretrained(model_args.model_name_or_path)
    dataset = load_dataset("json", data_files=data_args.dataset)["train"]
    trainer = Trainer(model=model, args=training_args, train_dataset=dataset, data_collator=Collator(tokenizer, data_args.source_max_len))
    result = trainer.train()
    trainer.log_metrics("train", result.metrics)
    trainer.save_metrics("train", result.metrics)
    trainer.save_state()


if __name__ == "__main__":
    train()
