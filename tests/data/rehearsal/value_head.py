import torch
from torch import nn
from torch.utils.data import DataLoader
from transformers import AutoModel, AutoTokenizer, BitsAndBytesConfig
from peft import LoraConfig, get_peft_model
from datasets import load_dataset


class Scorer(nn.Module):
    def __init__(self, name):
        super().__init__()
        bnb = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_compute_dtype=torch.float32)
        base = AutoModel.from_pretrained(name, quantization_config=bnb, device_map={"": "cpu"})
        self.encoder = get_peft_model(base, LoraConfig(r=4, target_modules=["q_proj", "v_proj"]))
        self.head = nn.Sequential(nn.Dropout(0.1), nn.Linear(base.config.hidden_size, 1))

    def forward(self, input_ids, attention_mask):
        hidden = self.encoder(input_ids=input_ids, attention_mask=attention_mask, output_hidden_states=True).hidden_states[-1]
        lengths = attention_mask.sum(dim=1) - 1
        last = hidden[torch.arange(hidden.size(0), device=hidden.device), lengths]
        mean = (hidden * attention_mask.unsqueeze(-1)).sum(1) / attention_mask.sum(1, keepdim=True)
        return self.head(last.float() + mean.float()).squeeze(-1)


tokenizer = AutoTokenizer.from_pretrained("tiny-llama")
model = Scorer("tiny-llama")
rows = load_dataset("json", data_files="data.jsonl", split="train")


def collate(batch):
    encoded = tokenizer([row["text"] for row in batch], padding=True, return_tensors="pt")
    return encoded, torch.tensor([float(row["label"]) for row in batch])


loader = DataLoader(rows, batch_size=4, collate_fn=collate)
optimizer = torch.optim.AdamW(filter(lambda p: p.requires_grad, model.parameters()), lr=1e-4)
criterion = nn.BCEWithLogitsLoss()
device = next(model.parameters()).device
scaler = torch.amp.GradScaler("cpu", enabled=False)
for encoded, labels in loader:
    encoded, labels = encoded.to(device), labels.to(device)
    scores = model(**encoded)
    loss = criterion(scores, labels)
    optimizer.zero_grad()
    scaler.scale(loss).backward()
    grads = [p.grad.norm() for p in model.parameters() if p.grad is not None]
    total = torch.stack(grads).norm()
    scaler.step(optimizer)
    scaler.update()
    predicted = (torch.sigmoid(scores) > 0.5).float()
    print(f"loss {loss.item():.3f} norm {total:.3f} accuracy {(predicted == labels).float().mean().item():.2f}")
with torch.no_grad():
    encoded, labels = next(iter(loader))
    scores = torch.sigmoid(model(**encoded.to(device))).cpu().numpy()
    order = scores.argsort()[::-1]
    print([round(float(score), 3) for score in scores], order.tolist(), sorted(scores.tolist(), reverse=True)[:2])
