import torch
from peft import LoraConfig, get_peft_model, prepare_model_for_kbit_training
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, Trainer, TrainingArguments


class FineTuner:
    def __init__(self, name="org/base"):
        self.bnb = BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.bfloat16
        )
        self.model = AutoModelForCausalLM.from_pretrained(name, quantization_config=self.bnb)

    def prepare(self):
        self.model = prepare_model_for_kbit_training(self.model)  # note: KB401
        self.model = get_peft_model(self.model, LoraConfig(r=8))

    def train(self):
        args = TrainingArguments("out", bf16=True)
        self.trainer = Trainer(model=self.model, args=args, train_dataset=data)
        self.trainer.train()


tuner = FineTuner()
tuner.prepare()
tuner.train()
