"""An optimizer of the base is built first, and groups of the adapters are added to it."""
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, BitsAndBytesConfig

bnb = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.bfloat16)
model = AutoModelForCausalLM.from_pretrained("org/base", quantization_config=bnb, device_map={"": 0})
optimizer = torch.optim.AdamW(model.parameters(), lr=2e-4)
model.gradient_checkpointing_enable()
model = get_peft_model(model, LoraConfig(r=16, target_modules="all-linear"))
optimizer.add_param_group({"params": [p for p in model.parameters() if p.requires_grad]})
model.train()
for batch in loader:
    loss = model(**batch).loss
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
