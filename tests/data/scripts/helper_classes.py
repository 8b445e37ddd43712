"""Class methods, properties, inheritance and callable objects; the loop trains what `build` made."""
import torch
from peft import LoraConfig, get_peft_model, prepare_model_for_kbit_training
from transformers import AutoModelForCausalLM, BitsAndBytesConfig


class Factory:
    QUANTIZATION = {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_compute_dtype": torch.bfloat16}

    @staticmethod
    def adapters(rank=16):
        return LoraConfig(r=rank, target_modules="all-linear")

    @classmethod
    def build(cls, name):
        model = AutoModelForCausalLM.from_pretrained(name, quantization_config=BitsAndBytesConfig(**cls.QUANTIZATION))
        model = prepare_model_for_kbit_training(model)  # note: KB401
        return get_peft_model(model, cls.adapters(8))


class Experiment:
    def __init__(self, name):
        self.model = Factory.build(name).train()

    @property
    def optimizer(self):
        return torch.optim.AdamW(self.model.parameters(), lr=self.rate)


class Run(Experiment):
    rate = 1e-4

    def __init__(self, name, batches):
        super().__init__(name)
        self.batches = batches

    def __call__(self):
        optimizer = self.optimizer
        for batch in self.batches:
            self.model(**batch).loss.backward()
            optimizer.step()
            optimizer.zero_grad()


Run("org/base", batches)()
