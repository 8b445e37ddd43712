import torch
import torch.nn.functional as F

from helper import build

model, tokenizer = build("tiny-llama")
reference, _ = build("tiny-llama")
reference.eval().requires_grad_(False)
tokenizer.padding_side = "left"
optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-3)
prompts = ["say 1", "please say 22"]


def reward(text):
    words = text.split()
    return sum(word.isdigit() for word in words) / (len(words) + 1)


def log_probabilities(net, ids, mask):
    logits = net(input_ids=ids, attention_mask=mask).logits[:, :-1]
    return torch.gather(F.log_softmax(logits.float(), -1), 2, ids[:, 1:].unsqueeze(-1)).squeeze(-1)


baseline = 0.0
for step in range(2):
    batch = tokenizer(prompts, return_tensors="pt", padding=True).to(model.device)
    start = batch["input_ids"].shape[1]
    with torch.no_grad():
        ids = model.generate(**batch, max_new_tokens=6, do_sample=True, top_k=0, pad_token_id=tokenizer.pad_token_id)
    texts = tokenizer.batch_decode(ids[:, start:], skip_special_tokens=True)
    rewards = torch.tensor([reward(text) for text in texts], device=model.device)
    mask = torch.cat([batch["attention_mask"], torch.ones_like(ids[:, start:])], dim=1)
    model.train()
    own = log_probabilities(model, ids, mask)[:, start - 1:]
    with torch.no_grad():
        other = log_probabilities(reference, ids, mask)[:, start - 1:]
    advantage = rewards - baseline
    divergence = (own - other).mean()
    loss = -(advantage.unsqueeze(1) * own).mean() + 0.1 * divergence
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad()
    baseline = 0.9 * baseline + 0.1 * rewards.mean().item()
    print(f"{step}: reward {rewards.mean():.3f} divergence {divergence.item():.4f} loss {loss:.4f} best {texts[rewards.argmax().item()]!r}")
