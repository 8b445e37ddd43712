import json

import torch
from peft import LoraConfig, get_peft_model, prepare_model_for_kbit_training
from torch.utils.data import DataLoader
from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig

device = "cpu"
tokenizer = AutoTokenizer.from_pretrained("tiny-llama")
model = AutoModelForCausalLM.from_pretrained(
    "tiny-llama", quantization_config=BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_compute_dtype=torch.float32), device_map={"": device}
)
model = prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)
model = get_peft_model(model, LoraConfig(r=4, target_modules=["up_proj", "down_proj"]))
with open("data.jsonl") as file:
    texts = [json.loads(line)["text"] for line in file]


def collate(rows):
    batch = tokenizer(rows, padding=True, truncation=True, max_length=48, return_tensors="pt")
    batch["labels"] = batch["input_ids"].clone()
    return batch


loader = DataLoader(texts, batch_size=2, shuffle=True, collate_fn=collate)
optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-3)
model.train()
total = 0.0
for epoch in range(1):
    for step, batch in enumerate(loader):
        batch = {k: v.to(device) for k, v in batch.items()}
        loss = model(**batch).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        total += loss.item()
        if step == 1:
            break
print(f"mean loss {total / 2:.3f}")
model.save_pretrained("loop-adapter")
