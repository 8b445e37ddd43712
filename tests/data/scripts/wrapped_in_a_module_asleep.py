"""The same without train(): the layers do not checkpoint."""
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, BitsAndBytesConfig


class Policy(torch.nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, **batch):
        return self.inner(**batch).loss


bnb = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.bfloat16)
base = AutoModelForCausalLM.from_pretrained("org/base", quantization_config=bnb, device_map={"": 0})
base.gradient_checkpointing_enable()
model = Policy(get_peft_model(base, LoraConfig(r=16, target_modules="all-linear")))
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
for batch in loader:
    model(**batch).backward()  # fault: KB403
    optimizer.step()
    optimizer.zero_grad()
