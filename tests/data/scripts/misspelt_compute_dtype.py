import torch
from peft import LoraConfig
from transformers import AutoModelForCausalLM, BitsAndBytesConfig
from trl import SFTConfig, SFTTrainer

bnb = BitsAndBytesConfig(
    load_in_4bit=True,
    bnb_4bit_quant_type="nf4",
    bnb_4bit_compute_type=torch.bfloat16,  # fault: KB521
)
model = AutoModelForCausalLM.from_pretrained("HuggingFaceTB/SmolLM2-1.7B", quantization_config=bnb)
SFTTrainer(model, args=SFTConfig("smol"), train_dataset=data, peft_config=LoraConfig()).train()
