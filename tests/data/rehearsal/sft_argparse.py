import argparse

import torch
from datasets import load_dataset
from peft import LoraConfig, get_peft_model, prepare_model_for_kbit_training
from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig
from trl import SFTConfig, SFTTrainer

parser = argparse.ArgumentParser()
parser.add_argument("--model", default="tiny-llama")
parser.add_argument("--output_dir", default="./results")
parser.add_argument("--steps", type=int, default=2)
args = parser.parse_args()

bnb = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.float32)
model = AutoModelForCausalLM.from_pretrained(args.model, quantization_config=bnb, device_map={"": "cpu"})
tokenizer = AutoTokenizer.from_pretrained(args.model)
model = prepare_model_for_kbit_training(model)
model = get_peft_model(model, LoraConfig(r=4, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM"))
model.print_trainable_parameters()
dataset = load_dataset("json", data_files="data.jsonl", split="train").select_columns(["text"])
trainer = SFTTrainer(
    model=model,
    processing_class=tokenizer,
    train_dataset=dataset,
    args=SFTConfig(output_dir=args.output_dir, per_device_train_batch_size=2, max_length=64, max_steps=args.steps, report_to="none", use_cpu=True, bf16=False),
)
trainer.train()
trainer.save_model(args.output_dir)
tokenizer.save_pretrained(args.output_dir)
