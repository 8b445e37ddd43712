"""A map for a small GPU: transformers refuses it unless the config allows the offload."""
import torch
from peft import LoraConfig
from transformers import AutoModelForCausalLM, BitsAndBytesConfig
from trl import SFTConfig, SFTTrainer

nf4 = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.bfloat16)
model = AutoModelForCausalLM.from_pretrained(
    "org/base",
    quantization_config=nf4,
    device_map={"model.embed_tokens": 0, "model.layers": 0, "model.norm": 0, "lm_head": "cpu"},  # fault: KB707
)
adapters = LoraConfig(r=16, target_modules="all-linear")
SFTTrainer(model=model, args=SFTConfig("out"), train_dataset=data, peft_config=adapters).train()
