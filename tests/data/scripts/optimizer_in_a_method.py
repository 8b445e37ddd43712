"""Steps of a training as methods that another file calls: their order in the text says nothing."""
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, BitsAndBytesConfig


class Finetuning:
    def __init__(self, name):
        bnb = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.bfloat16)
        self.model = AutoModelForCausalLM.from_pretrained(name, quantization_config=bnb, device_map={"": 0})
        self.model.gradient_checkpointing_enable()

    def build_optimizer(self, lr):
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=lr)

    def attach(self, rank):
        self.model = get_peft_model(self.model, LoraConfig(r=rank, target_modules="all-linear"))
        self.model.train()

    def fit(self, batches):
        for batch in batches:
            self.model(**batch).loss.backward()
            self.optimizer.step()
            self.optimizer.zero_grad()
