"""Adapters of a third party were forgotten: only norms, embeddings and head learn."""
import torch
from transformers import AutoModelForCausalLM, BitsAndBytesConfig

bnb = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.bfloat16)
model = AutoModelForCausalLM.from_pretrained("Qwen/Qwen2.5-0.5B", quantization_config=bnb)
model.gradient_checkpointing_enable()
model.train()
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5)
for batch in loader:
    loss = model(input_ids=batch["input_ids"], labels=batch["labels"]).loss
    loss.backward()  # fault: KB201
    optimizer.step()
    optimizer.zero_grad()
