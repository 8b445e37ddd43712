"""The same map with the offload allowed: the head stays a float layer on the CPU, and the model trains."""
import torch
from peft import LoraConfig
from transformers import AutoModelForCausalLM, BitsAndBytesConfig
from trl import SFTConfig, SFTTrainer

int8 = BitsAndBytesConfig(load_in_8bit=True, llm_int8_enable_fp32_cpu_offload=True)
model = AutoModelForCausalLM.from_pretrained(
    "org/base",
    quantization_config=int8,
    device_map={"model.embed_tokens": 0, "model.layers": 0, "model.norm": 0, "lm_head": "cpu"},
)
adapters = LoraConfig(r=16, target_modules="all-linear")
SFTTrainer(model=model, args=SFTConfig("out"), train_dataset=data, peft_config=adapters).train()
