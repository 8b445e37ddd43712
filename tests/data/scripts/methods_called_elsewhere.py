"""Another file calls these methods, in an order of its own: adapters are attached last, and thrown away after training."""
import torch
from peft import LoraConfig, get_peft_model, prepare_model_for_kbit_training
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, Trainer, TrainingArguments


class Finetuner:
    def __init__(self, name):
        bnb = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.bfloat16)
        self.model = AutoModelForCausalLM.from_pretrained(name, quantization_config=bnb)

    def attach(self, rank):
        self.model = get_peft_model(self.model, LoraConfig(r=rank, target_modules="all-linear"))

    def discard(self):
        self.model = self.model.unload()

    def freeze(self):
        self.model.requires_grad_(False)

    def off(self):
        self.model.disable_adapter_layers()

    def prepare(self):
        self.model = prepare_model_for_kbit_training(self.model, gradient_checkpointing_kwargs={"use_reentrant": False})

    def fit(self, data):
        args = TrainingArguments("out", bf16=True, gradient_checkpointing=True)
        Trainer(self.model, args, train_dataset=data).train()
