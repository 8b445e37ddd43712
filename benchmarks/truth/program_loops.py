"""How generated programs train: loops of their own, and the Trainers of transformers and TRL with their arguments."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Loop:
    """A loop of the script's own."""

    optimizer: str = "torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)"
    opened: str = ""
    """The ``with`` statement around the forward pass."""
    accelerator: str = ""
    """The arguments of the ``Accelerator``; empty without one."""
    loss: str = "loss = model(**batch).loss"
    backward: tuple[str, ...] = ("loss.backward()", "optimizer.step()", "optimizer.zero_grad()")
    mode: str = "model.train()"
    batch: str = ""
    """A line that changes the batch."""
    own: bool = False
    """Whether its fault is in the loop, where the model alone does not show it."""


_ADAPTERS = 'torch.optim.AdamW([p for n, p in model.named_parameters() if "lora_" in n], lr=1e-2)'
LOOPS: dict[str, Loop] = {
    "plain": Loop(),
    "autocast": Loop(opened='with torch.autocast("cpu", dtype=torch.bfloat16):'),
    "accelerate": Loop(accelerator="cpu=True"),
    "accelerate, bf16": Loop(accelerator='cpu=True, mixed_precision="bf16"'),
    "everything optimized": Loop("torch.optim.AdamW(model.parameters(), lr=1e-2)"),
    "sgd": Loop("torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=10.0)"),
    "adapters optimized": Loop(_ADAPTERS, own=True),
    "clipped": Loop(
        backward=(
            "loss.backward()",
            "torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)",
            "optimizer.step()",
            "optimizer.zero_grad()",
        )
    ),
    "loss divided": Loop(loss="loss = model(**batch).loss / 4"),
    "loss of its own": Loop(
        loss='logits = model(input_ids=batch["input_ids"]).logits.float()\n'
        "loss = torch.nn.functional.cross_entropy(logits.flatten(0, -2), torch.zeros(logits[..., 0].numel(), dtype=torch.long))"
    ),
    "no labels": Loop(loss='loss = model(input_ids=batch["input_ids"]).loss', own=True),
    "without gradients": Loop(opened="with torch.no_grad():", own=True),
    "loss detached": Loop(loss="loss = model(**batch).loss.detach()", own=True),
    "loss as a number": Loop(loss="loss = model(**batch).loss.item()", own=True),
    "zeroed too soon": Loop(backward=("loss.backward()", "optimizer.zero_grad()", "optimizer.step()"), own=True),
    "no step": Loop(backward=("loss.backward()", "optimizer.zero_grad()"), own=True),
    "no backward": Loop(backward=("optimizer.step()", "optimizer.zero_grad()"), own=True),
    "rate of zero": Loop("torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.0)", own=True),
    "labels ignored": Loop(batch='batch["labels"] = torch.full_like(batch["labels"], -100)', own=True),
    "token beyond": Loop(batch='batch["input_ids"][0, 0] = 300', own=True),
    "optimizer first": Loop(own=True),
    "in eval mode": Loop(mode="model.eval()"),
}
_LM, _SFT, _DPO = "Trainer", "SFTTrainer", "DPOTrainer"
#: loop -> (Trainer, further arguments of its arguments, further arguments of its own)
TRAINERS: dict[str, tuple[str, str, str]] = {
    "trainer": (_LM, "", ""),
    "trainer, bf16": (_LM, "bf16=True", ""),
    "trainer, checkpointing": (_LM, "gradient_checkpointing=True", ""),
    "trainer, not reentrant": (
        _LM,
        'gradient_checkpointing=True, gradient_checkpointing_kwargs={"use_reentrant": False}',
        "",
    ),
    "trainer, reentrant": (
        _LM,
        'gradient_checkpointing=True, gradient_checkpointing_kwargs={"use_reentrant": True}',
        "",
    ),
    "trainer, accumulation": (_LM, "gradient_accumulation_steps=2", ""),
    "trainer, adafactor": (_LM, 'optim="adafactor"', ""),
    "trainer, smoothing": (_LM, "label_smoothing_factor=0.1", ""),
    "trainer, old strategy": (_LM, 'evaluation_strategy="no"', ""),
    "trainer, evaluation": (_LM, 'eval_strategy="steps", eval_steps=1', ""),
    "trainer, best": (_LM, "load_best_model_at_end=True", ""),
    "trainer, tokenizer": (_LM, "", "tokenizer=tokenizer"),
    "trainer, collator": (_LM, "", "data_collator=DataCollatorForLanguageModeling(tokenizer, mlm=False)"),
    "sft": (_SFT, "", ""),
    "sft, bf16": (_SFT, "bf16=True", ""),
    "sft, config": (_SFT, "", "peft_config=config"),
    "sft, not checkpointing": (_SFT, "gradient_checkpointing=False", ""),
    "sft, packing": (_SFT, "packing=True, max_length=16", ""),
    "sft, old length": (_SFT, "max_seq_length=16", ""),
    "sft, old field": (_SFT, "", 'dataset_text_field="text"'),
    "sft, tokenizer": (_SFT, "", "tokenizer=tokenizer"),
    "dpo": (_DPO, "", ""),
    "dpo, config": (_DPO, "", "peft_config=config"),
    "dpo, no reference": (_DPO, "", "ref_model=None"),
    "dpo, beta": (_DPO, "", "beta=0.1"),
}
#: what follows the training
ENDS: dict[str, str] = {
    "nothing": "",
    "saved": "model.save_pretrained(folder)",
    "trainer saved": "trainer.save_model(folder)",
    "merged": "model = model.merge_and_unload()\nmodel.save_pretrained(folder)",
    "loaded again": "model.save_pretrained(folder)\nmodel = {class}.from_pretrained(folder)",
    "adapters loaded again": "model.save_pretrained(folder)\nmodel = PeftModel.from_pretrained(model.unload(), folder)",
}
