"""Nobody calls it here, but what happens within one method happens in its order."""
import torch
from peft import LoraConfig, get_peft_model, prepare_model_for_kbit_training
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, Trainer, TrainingArguments


class Finetuner:
    def __init__(self, name):
        bnb = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.bfloat16)
        self.model = AutoModelForCausalLM.from_pretrained(name, quantization_config=bnb)

    def fit(self, data):
        model = get_peft_model(self.model, LoraConfig(r=16, target_modules="all-linear"))
        kwargs = {"use_reentrant": False}
        model = prepare_model_for_kbit_training(model, gradient_checkpointing_kwargs=kwargs)  # fault: KB202
        Trainer(model, TrainingArguments("out", bf16=True), train_dataset=data).train()

    def evaluate(self, batches):
        self.model.eval()
        with torch.no_grad():
            return [self.model(**batch).loss for batch in batches]
