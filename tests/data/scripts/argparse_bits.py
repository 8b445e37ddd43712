"""Bits, rank and checkpointing come from the command line, with defaults."""
import argparse

import torch
from peft import LoraConfig, get_peft_model, prepare_model_for_kbit_training
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, Trainer, TrainingArguments


def parse():
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", type=str, default="org/base")
    parser.add_argument("--bits", type=int, default=4)
    parser.add_argument("--lora_r", type=int, default=8)
    parser.add_argument("--bf16", action="store_true")
    return parser.parse_args()


def main():
    args = parse()
    quantization = BitsAndBytesConfig(
        load_in_4bit=args.bits == 4,
        load_in_8bit=args.bits == 8,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_compute_dtype=torch.bfloat16 if args.bf16 else torch.float16,
    )
    model = AutoModelForCausalLM.from_pretrained(args.model, quantization_config=quantization)
    model = prepare_model_for_kbit_training(model)  # note: KB401
    model = get_peft_model(model, LoraConfig(r=args.lora_r))
    training = TrainingArguments("out", bf16=args.bf16, per_device_train_batch_size=2)
    Trainer(model=model, args=training, train_dataset=data).train()


if __name__ == "__main__":
    main()
