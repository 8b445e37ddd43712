"""A module of one's own around the adapted model: its train() reaches the model, its forward gives the loss."""
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, BitsAndBytesConfig


class WithValue(torch.nn.Module):
    def __init__(self, policy):
        super().__init__()
        self.policy = policy
        self.value = torch.nn.Linear(4096, 1)

    def forward(self, **batch):
        out = self.policy(**batch, output_hidden_states=True)
        return out.loss + self.value(out.hidden_states[-1].float()).mean()


bnb = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.bfloat16)
base = AutoModelForCausalLM.from_pretrained("org/base", quantization_config=bnb, device_map={"": 0})
base.gradient_checkpointing_enable()
model = WithValue(get_peft_model(base, LoraConfig(r=16, target_modules="all-linear")))
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
model.train()
for batch in loader:
    model(**batch).backward()
    optimizer.step()
    optimizer.zero_grad()
