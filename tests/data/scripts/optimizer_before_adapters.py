"""The optimizer holds the base, which the adapters freeze: the loss moves nothing."""
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, get_cosine_schedule_with_warmup

bnb = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.bfloat16)
model = AutoModelForCausalLM.from_pretrained("org/base", quantization_config=bnb, device_map={"": 0})
optimizer = torch.optim.AdamW(model.parameters(), lr=2e-4)  # fault: KB706
schedule = get_cosine_schedule_with_warmup(optimizer, 10, 1000)
model.gradient_checkpointing_enable()
model = get_peft_model(model, LoraConfig(r=16, target_modules="all-linear"))
print(sum(p.numel() for p in model.parameters() if p.requires_grad))
model.train()
for batch in loader:
    loss = model(**batch).loss
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    schedule.step()
    optimizer.zero_grad()
