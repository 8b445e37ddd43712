"""A helper for other scripts: who calls it decides about checkpointing afterwards, or does not."""
import torch
from peft import LoraConfig, get_peft_model, prepare_model_for_kbit_training
from transformers import AutoModelForCausalLM, BitsAndBytesConfig


def load_for_training(name, rank=16):
    bnb = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.bfloat16)
    model = AutoModelForCausalLM.from_pretrained(name, quantization_config=bnb)
    model = prepare_model_for_kbit_training(model)  # note: KB401
    return get_peft_model(model, LoraConfig(r=rank))
