import torch
from peft import LoraConfig
from transformers import AutoModelForCausalLM, BitsAndBytesConfig
from trl import GRPOConfig, GRPOTrainer

model = AutoModelForCausalLM.from_pretrained(
    "Qwen/Qwen2-7B-Instruct",
    quantization_config=BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.bfloat16
    ),
)
trainer = GRPOTrainer(
    model=model,
    reward_funcs=lambda completions, **kwargs: [-abs(20 - len(c)) for c in completions],
    args=GRPOConfig(output_dir="grpo", gradient_checkpointing=False),  # note: KB402  # note: KB402
    train_dataset=data,
    peft_config=LoraConfig(r=16, target_modules="all-linear"),
)
trainer.train()
