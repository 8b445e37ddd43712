"""The Trainer of a callable object puts right what a class method left to PEFT."""
import torch
from peft import LoraConfig, get_peft_model, prepare_model_for_kbit_training
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, Trainer, TrainingArguments


class Factory:
    @classmethod
    def quantization(cls):
        return BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.bfloat16)

    @classmethod
    def build(cls, name):
        model = AutoModelForCausalLM.from_pretrained(name, quantization_config=cls.quantization())
        model = prepare_model_for_kbit_training(model)
        return get_peft_model(model, LoraConfig(r=16, target_modules="all-linear"))


class Pipeline:
    def __init__(self, name):
        self.name = name

    @property
    def arguments(self):
        kwargs = {"use_reentrant": False}
        return TrainingArguments("out", bf16=True, gradient_checkpointing=True, gradient_checkpointing_kwargs=kwargs)

    def __call__(self, data):
        Trainer(model=Factory.build(self.name), args=self.arguments, train_dataset=data).train()


Pipeline("org/base")(data)
