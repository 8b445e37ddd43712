import torch
from datasets import load_dataset
from peft import LoraConfig
from transformers import AutoModelForCausalLM, BitsAndBytesConfig
from trl import SFTConfig, SFTTrainer


def main():
    model = AutoModelForCausalLM.from_pretrained(
        "Qwen/Qwen2.5-7B",
        quantization_config=BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.bfloat16
        ),
    )
    config = SFTConfig(
        output_dir="sft",
        bf16=True,
        gradient_checkpointing_kwargs={"use_reentrant": True},  # note: KB401
    )
    peft_config = LoraConfig(r=64, lora_alpha=16, lora_dropout=0.1, bias="none", task_type="CAUSAL_LM")
    trainer = SFTTrainer(model, args=config, train_dataset=load_dataset("imdb", split="train"), peft_config=peft_config)
    trainer.train()


if __name__ == "__main__":
    main()
