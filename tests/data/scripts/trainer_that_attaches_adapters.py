"""A Trainer of the file that attaches the adapters itself."""
import torch
from peft import LoraConfig, PeftModel, get_peft_model, prepare_model_for_kbit_training
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, Trainer, TrainingArguments



class AdaptingTrainer(Trainer):
    def __init__(self, model, config, **kwargs):
        model = get_peft_model(model, config)
        super().__init__(model=model, **kwargs)


bnb = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.bfloat16)
model = AutoModelForCausalLM.from_pretrained("mistralai/Mistral-7B-v0.1", quantization_config=bnb)
model = prepare_model_for_kbit_training(model, gradient_checkpointing_kwargs={"use_reentrant": False})
args = TrainingArguments("out", bf16=True, gradient_checkpointing=True)
AdaptingTrainer(model, LoraConfig(r=8), args=args, train_dataset=data).train()
