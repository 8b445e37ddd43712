"""SFTTrainer attaches the adapters after the optimizer that it is given was built."""
import bitsandbytes as bnb
import torch
from peft import LoraConfig
from transformers import AutoModelForCausalLM, BitsAndBytesConfig
from trl import SFTConfig, SFTTrainer

nf4 = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.bfloat16)
model = AutoModelForCausalLM.from_pretrained("org/base", quantization_config=nf4)
groups = [{"params": [p for n, p in model.named_parameters() if "norm" not in n], "weight_decay": 0.1}]
optimizer = bnb.optim.PagedAdamW8bit(groups, lr=2e-4)  # fault: KB706
trainer = SFTTrainer(
    model=model,
    args=SFTConfig("out"),
    train_dataset=data,
    peft_config=LoraConfig(r=16, target_modules="all-linear"),
    optimizers=(optimizer, None),
)
trainer.train()
