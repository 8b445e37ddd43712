"""Supervised fine-tuning and then preferences in one file, with the first stage as the reference."""
import torch
from peft import LoraConfig, PeftModel, AutoPeftModelForCausalLM
from transformers import AutoModelForCausalLM, BitsAndBytesConfig
from trl import DPOConfig, DPOTrainer, SFTConfig, SFTTrainer
bnb = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.bfloat16)
base = AutoModelForCausalLM.from_pretrained("mistralai/Mistral-7B-v0.1", quantization_config=bnb, dtype=torch.bfloat16)
sft = SFTTrainer(model=base, args=SFTConfig("sft"), train_dataset=ds, peft_config=LoraConfig(r=16, target_modules="all-linear"))
sft.train()
sft.save_model("sft")
del base, sft
base = AutoModelForCausalLM.from_pretrained("mistralai/Mistral-7B-v0.1", quantization_config=bnb, dtype=torch.bfloat16)
model = PeftModel.from_pretrained(base, "sft", is_trainable=True, adapter_name="train")
model.load_adapter("sft", adapter_name="reference")
dpo = DPOTrainer(model=model, args=DPOConfig("dpo", model_adapter_name="train", ref_adapter_name="reference"), train_dataset=pref)  # fault: KB543
dpo.train()
