"""The first 8-bit notebook, as a script."""
import torch
import torch.nn as nn
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, Trainer, TrainingArguments

model = AutoModelForCausalLM.from_pretrained(
    "facebook/opt-6.7b", quantization_config=BitsAndBytesConfig(load_in_8bit=True), device_map="auto"
)
for param in model.parameters():
    param.requires_grad = False
    if param.ndim == 1:
        param.data = param.data.to(torch.float32)  # note: KB628

model.gradient_checkpointing_enable()
model.enable_input_require_grads()  # note: KB302


class CastOutputToFloat(nn.Sequential):
    def forward(self, x):
        return super().forward(x).to(torch.float32)


model.lm_head = CastOutputToFloat(model.lm_head)  # note: KB628
model = get_peft_model(model, LoraConfig(r=16, target_modules=["q_proj", "v_proj"]))
Trainer(model=model, args=TrainingArguments("o", fp16=True), train_dataset=data).train()
