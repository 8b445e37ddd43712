import torch
from peft import LoraConfig
from transformers import AutoModelForCausalLM, BitsAndBytesConfig
from trl import SFTConfig, SFTTrainer

bnb = BitsAndBytesConfig(
    load_in_4bit=True,
    bnb_4bit_quant_type="nf4",
    bnb_4bit_compute_dtype=torch.float16,  # fault: KB121
)
model = AutoModelForCausalLM.from_pretrained("google/gemma-7b", quantization_config=bnb, device_map={"": 0})
SFTTrainer(model, args=SFTConfig("gemma"), train_dataset=data, peft_config=LoraConfig(r=8)).train()
