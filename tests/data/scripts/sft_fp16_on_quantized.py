"""TRL casts the adapters of a quantized model to bfloat16, which a float16 gradient scaler cannot unscale."""
import torch
from datasets import load_dataset
from peft import LoraConfig
from transformers import AutoModelForCausalLM, BitsAndBytesConfig
from trl import SFTConfig, SFTTrainer

model = AutoModelForCausalLM.from_pretrained(
    "NousResearch/Llama-2-7b-hf",
    quantization_config=BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.float16
    ),
    device_map={"": 0},
)
args = SFTConfig(output_dir="results", fp16=True, bf16=False, per_device_train_batch_size=4)  # fault: KB120
trainer = SFTTrainer(
    model=model,
    train_dataset=load_dataset("mlabonne/guanaco-llama2-1k", split="train"),
    peft_config=LoraConfig(lora_alpha=16, lora_dropout=0.1, r=64, bias="none", task_type="CAUSAL_LM"),
    args=args,
)
trainer.train()
