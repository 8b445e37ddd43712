import json
import math
import os

import torch
from torch.nn.utils import clip_grad_norm_
from torch.utils.data import DataLoader
from tqdm import tqdm
from transformers import default_data_collator, get_cosine_schedule_with_warmup

from helper import build, dataset


class Mean:
    def __init__(self):
        self.total, self.count = torch.tensor(0.0), torch.tensor(0)

    def update(self, values):
        self.total += values.float().sum().cpu()
        self.count += values.numel()

    def compute(self):
        return self.total / self.count


epochs, accumulate = 2, 2
model, tokenizer = build("tiny-llama")
device = model.device
data = dataset(tokenizer).train_test_split(test_size=4, seed=0)
loader = DataLoader(data["train"], batch_size=2, shuffle=True, collate_fn=default_data_collator, drop_last=True)
test_loader = DataLoader(data["test"], batch_size=2, collate_fn=default_data_collator)
optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-3)
total_steps = math.ceil(len(loader) / accumulate) * epochs
scheduler = get_cosine_schedule_with_warmup(optimizer, num_warmup_steps=int(0.1 * total_steps), num_training_steps=total_steps)
best, history = float("inf"), []
for epoch in range(epochs):
    model.train()
    bar = tqdm(loader, desc=f"epoch {epoch}")
    running = 0.0
    for step, batch in enumerate(bar):
        batch = {key: value.to(device) for key, value in batch.items()}
        loss = model(**batch).loss
        if not torch.isfinite(loss):
            raise RuntimeError(f"loss is {loss.item()} at step {step}")
        (loss / accumulate).backward()
        running = 0.9 * running + 0.1 * loss.item()
        if (step + 1) % accumulate == 0:
            norm = clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            scheduler.step()
            optimizer.zero_grad(set_to_none=True)
            bar.set_postfix(loss=f"{loss.item():.4f}", lr=scheduler.get_last_lr()[0], norm=f"{norm:.3f}")
    model.eval()
    losses, accuracy = [], Mean()
    with torch.no_grad():
        for batch in test_loader:
            batch = {key: value.to(device) for key, value in batch.items()}
            outputs = model(**batch)
            losses.append(outputs.loss.item())
            predictions = torch.argmax(outputs.logits[:, :-1], dim=-1)
            labels = batch["labels"][:, 1:]
            mask = labels != tokenizer.pad_token_id
            accuracy.update((predictions == labels)[mask])
    value = sum(losses) / len(losses)
    history.append({"epoch": epoch, "loss": value, "perplexity": math.exp(value), "accuracy": accuracy.compute().item()})
    print("epoch {epoch}: {loss:.3f} {perplexity:.1f} {accuracy:.2%}".format(**history[-1]))
    if value < best:
        best = value
        os.makedirs("best", exist_ok=True)
        model.save_pretrained("best")
        torch.save({"optimizer": optimizer.state_dict(), "scheduler": scheduler.state_dict(), "epoch": epoch}, "best/state.pt")
state = torch.load("best/state.pt", map_location="cpu")
optimizer.load_state_dict(state["optimizer"])
with open("history.json", "w") as file:
    json.dump(history, file, indent=1)
