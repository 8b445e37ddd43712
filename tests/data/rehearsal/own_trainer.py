import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, WeightedRandomSampler
from transformers import Trainer, TrainingArguments, default_data_collator

from helper import build, dataset

model, tokenizer = build("tiny-llama")


class Distilled(Trainer):
    def __init__(self, *args, teacher=None, temperature=2.0, **kwargs):
        super().__init__(*args, **kwargs)
        self.teacher, self.temperature = teacher, temperature
        self.parts = []

    def get_train_dataloader(self):
        weights = np.linspace(1, 2, len(self.train_dataset))
        sampler = WeightedRandomSampler(weights, len(weights))
        return DataLoader(self.train_dataset, batch_size=self.args.per_device_train_batch_size, sampler=sampler, collate_fn=default_data_collator)

    def create_optimizer(self, *_):
        named = [(name, p) for name, p in self.model.named_parameters() if p.requires_grad]
        groups = [
            {"params": [p for name, p in named if "lora_A" in name], "lr": self.args.learning_rate},
            {"params": [p for name, p in named if "lora_A" not in name], "lr": 16 * self.args.learning_rate},
        ]
        self.optimizer = torch.optim.AdamW(groups)
        return self.optimizer

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        labels = inputs.pop("labels")
        outputs = model(**inputs)
        with torch.no_grad():
            targets = self.teacher(**inputs).logits
        student = nn.functional.log_softmax(outputs.logits / self.temperature, dim=-1)
        divergence = nn.functional.kl_div(student, nn.functional.softmax(targets / self.temperature, dim=-1), reduction="batchmean")
        shifted = outputs.logits[..., :-1, :].contiguous()
        cross = nn.functional.cross_entropy(shifted.view(-1, shifted.size(-1)), labels[..., 1:].contiguous().view(-1).to(shifted.device), ignore_index=-100)
        loss = 0.5 * cross + 0.5 * divergence
        self.parts.append((cross.item(), divergence.detach().float().cpu().numpy().item()))
        if self.state.global_step % 10 == 0:
            self.log({"cross": cross.item(), "divergence": divergence.mean().item()})
        return (loss, outputs) if return_outputs else loss

    def log(self, logs, *args, **kwargs):
        print({key: round(float(value), 4) for key, value in logs.items()})
        super().log(logs, *args, **kwargs)


teacher, _ = build("tiny-llama")
teacher.eval()
trainer = Distilled(
    model, TrainingArguments("out", max_steps=1, per_device_train_batch_size=2, logging_steps=1, report_to="none", use_cpu=True),
    train_dataset=dataset(tokenizer), teacher=teacher,
)
trainer.train()
cross = np.array(trainer.parts)[:, 0]
print(f"{cross.mean():.3f} {np.median(cross):.3f}")
