"""Sentence embeddings with a contrastive loss in a loop of the file."""
import torch
import torch.nn.functional as F
from peft import LoraConfig, get_peft_model, prepare_model_for_kbit_training, TaskType
from transformers import AutoModel, AutoTokenizer, BitsAndBytesConfig

bnb = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.bfloat16)
encoder = AutoModel.from_pretrained("intfloat/e5-mistral-7b-instruct", quantization_config=bnb, dtype=torch.bfloat16)
encoder = prepare_model_for_kbit_training(encoder, gradient_checkpointing_kwargs={"use_reentrant": False})
encoder = get_peft_model(encoder, LoraConfig(r=16, task_type=TaskType.FEATURE_EXTRACTION, target_modules=["q_proj", "v_proj"]))


def embed(batch):
    hidden = encoder(**batch).last_hidden_state
    return F.normalize(hidden[:, -1], dim=-1)


opt = torch.optim.AdamW([p for p in encoder.parameters() if p.requires_grad], lr=1e-4)
encoder.train()
for q, d in loader:
    scores = embed(q) @ embed(d).T / 0.05
    loss = F.cross_entropy(scores, torch.arange(len(scores), device=scores.device))
    loss.backward()
    opt.step()
    opt.zero_grad()
