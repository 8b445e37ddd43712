"""How generated programs train: loops of their own, and the Trainers of transformers and TRL with their arguments."""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.truth.program_trainers import OWN


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
_USUAL = "torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)"
_PLAIN_SGD = "torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=1.0)"
_FIRST_GROUP = '{"params": [p for n, p in model.named_parameters() if p.requires_grad and "lora_B" not in n]}'
_SECOND_GROUP = '{"params": [p for n, p in model.named_parameters() if p.requires_grad and "lora_B" in n], "lr": 1e-1}'
_STEP = ("loss.backward()", "optimizer.step()", "optimizer.zero_grad()")
#: loop -> the dtype of its autocast region
AUTOCAST = {"autocast": "bfloat16", "accelerate, bf16": "bfloat16", "scaled": "float16"}
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
    "warmed up": Loop(
        f"{_USUAL}\nscheduler = get_linear_schedule_with_warmup(optimizer, 1, 10)", backward=(*_STEP, "scheduler.step()")
    ),
    "scheduled to zero": Loop(
        f"{_PLAIN_SGD}\nscheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.0)",
        backward=(*_STEP, "scheduler.step()"),
        own=True,
    ),
    "fused": Loop(_USUAL.replace("lr=", "fused=True, lr=")),
    "in 8 bits": Loop(_USUAL.replace("torch.optim.AdamW", "bitsandbytes.optim.AdamW8bit")),
    "lora plus": Loop("create_loraplus_optimizer(model, torch.optim.AdamW, lr=1e-2, loraplus_lr_ratio=16)"),
    "parameters used up": Loop(
        "torch.optim.AdamW(trainable, lr=1e-2)",
        batch="trainable = filter(lambda p: p.requires_grad, model.parameters())\nprint(sum(p.numel() for p in trainable))",
        own=True,
    ),
    "accumulated": Loop(accelerator="cpu=True, gradient_accumulation_steps=2", opened="with accelerator.accumulate(model):"),
    "scaled": Loop(
        _USUAL + '\nscaler = torch.amp.GradScaler("cpu")',
        opened='with torch.autocast("cpu", dtype=torch.float16):',
        backward=("scaler.scale(loss).backward()", "scaler.step(optimizer)", "scaler.update()", "optimizer.zero_grad()"),
    ),
    "clipped to nothing": Loop(
        _PLAIN_SGD,
        backward=("loss.backward()", "torch.nn.utils.clip_grad_norm_(model.parameters(), 0.0)", *_STEP[1:]),
        own=True,
    ),
    "backward twice": Loop(backward=("loss.backward()", *_STEP), own=True),
    "graph kept": Loop(backward=("loss.backward(retain_graph=True)", *_STEP[1:])),
    "nothing attended": Loop(batch='batch["attention_mask"] = torch.zeros_like(batch["attention_mask"])', own=True),
    "padded": Loop(batch='batch["attention_mask"][:, 12:] = 0\nbatch["input_ids"][:, 12:] = 0'),
    "beyond the positions": Loop(
        batch="batch = {name: values.repeat(1, 8) if values.ndim == 2 else values for name, values in batch.items()}", own=True
    ),
    "gradients off": Loop(mode="model.train()\ntorch.set_grad_enabled(False)", own=True),
    "in inference mode": Loop(opened="with torch.inference_mode():", own=True),
    "groups": Loop(f"torch.optim.AdamW([{_FIRST_GROUP}, {_SECOND_GROUP}], lr=1e-2)"),
    "accumulated by hand": Loop(
        loss="loss = model(**batch).loss / 2",
        batch="count = 0",
        backward=(
            "loss.backward()",
            "count += 1",
            "if count % 2 == 0:",
            "    optimizer.step()",
            "    optimizer.zero_grad()",
        ),
    ),
    "stepped by hand": Loop(
        backward=(
            "loss.backward()",
            "with torch.no_grad():",
            "    for parameter in model.parameters():",
            "        if parameter.grad is not None:",
            "            parameter.sub_(parameter.grad)",
            "optimizer.zero_grad()",
        ),
    ),
    "two passes": Loop(loss="loss = model(**batch).loss + model(**batch).loss"),
    "penalty": Loop(loss="loss = model(**batch).loss + 1e-3 * sum(p.norm() for p in model.parameters() if p.requires_grad)"),
    "beside its base": Loop(
        loss="with torch.no_grad(), model.disable_adapter():\n    reference = model(**batch)\noutputs = model(**batch)\n"
        "loss = outputs.loss + (outputs.logits.float() - reference.logits.float()).square().mean()"
    ),
    "kept on the CPU": Loop(opened="with torch.autograd.graph.save_on_cpu():"),
    "deterministic": Loop(mode="torch.use_deterministic_algorithms(True)\nmodel.train()"),
    "anomalies": Loop(opened="with torch.autograd.set_detect_anomaly(True):"),
    "clipped by value": Loop(
        backward=("loss.backward()", "torch.nn.utils.clip_grad_value_(model.parameters(), 0.5)", *_STEP[1:])
    ),
    "averaged": Loop(batch="average = torch.optim.swa_utils.AveragedModel(model)"),
    "muon": Loop("torch.optim.Muon([p for p in model.parameters() if p.requires_grad], lr=1e-2)"),
    "paged": Loop(_USUAL.replace("torch.optim.AdamW", "bitsandbytes.optim.PagedAdamW8bit")),
    "embeddings given": Loop(
        loss='given = model.get_input_embeddings()(batch["input_ids"])\n'
        'loss = model(inputs_embeds=given, labels=batch["labels"]).loss'
    ),
    "hidden states": Loop(
        loss='states = model(input_ids=batch["input_ids"], output_hidden_states=True).hidden_states\n'
        "loss = states[-1][..., 0].float().mean()"
    ),
}
_CROSS_ENTROPY = "torch.nn.functional.cross_entropy(outputs.logits.float().flatten(0, -2), labels.flatten())"
_LM, _SFT, _DPO, _KTO = "Trainer", "SFTTrainer", "DPOTrainer", "KTOTrainer"
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
    "trainer, saved": (_LM, 'save_strategy="steps", save_steps=1', ""),
    "trainer, rate of zero": (_LM, "learning_rate=0.0", ""),
    "trainer, cosine": (_LM, 'lr_scheduler_type="cosine", warmup_steps=1', ""),
    "trainer, clipped": (_LM, "max_grad_norm=0.3", ""),
    "trainer, noise": (_LM, "neftune_noise_alpha=5", ""),
    "trainer, 8 bits": (_LM, 'optim="adamw_bnb_8bit"', ""),
    "trainer, all columns": (_LM, "remove_unused_columns=False", ""),
    "trainer, other labels": (_LM, 'label_names=["targets"]', ""),
    "trainer, optimizer": (_LM, "", "optimizers=(torch.optim.AdamW(model.parameters(), lr=1e-2), None)"),
    "trainer, loss function": (
        _LM,
        "",
        f"compute_loss_func=lambda outputs, labels, **_: {_CROSS_ENTROPY}",
    ),
    "trainer, smoothing, bf16": (_LM, "label_smoothing_factor=0.1, bf16=True", ""),
    "trainer, compiled": (_LM, 'torch_compile=True, torch_compile_backend="eager"', ""),
    "trainer, fp16": (_LM, "fp16=True", ""),
    "trainer, paged": (_LM, 'optim="paged_adamw_8bit"', ""),
    "trainer, sgd": (_LM, 'optim="sgd"', ""),
    "trainer, bf16 in evaluation": (
        _LM,
        'eval_strategy="steps", eval_steps=1, bf16_full_eval=True',
        "eval_dataset=data",
    ),
    "trainer, groups": (_LM, "", f"optimizers=(torch.optim.AdamW([{_FIRST_GROUP}, {_SECOND_GROUP}], lr=1e-2), None)"),
    **{f"trainer, {name}": (_LM, "", own.given) for name, own in OWN.items() if not name.startswith("sft")},
    **{name: (_SFT, "", own.given) for name, own in OWN.items() if name.startswith("sft")},
    "sft": (_SFT, "", ""),
    "sft, prompts": (_SFT, "", ""),
    "sft, prompts, all tokens": (_SFT, "completion_only_loss=False", ""),
    "sft, messages": (_SFT, "", ""),
    "sft, assistant only": (_SFT, "assistant_only_loss=True", ""),
    "sft, tokens": (_SFT, "", ""),
    "sft, labels ignored": (_SFT, "", ""),
    "sft, short": (_SFT, "max_length=2", ""),
    "sft, padding free": (_SFT, "padding_free=True", ""),
    "sft, noise": (_SFT, "neftune_noise_alpha=5", ""),
    "sft, dft": (_SFT, 'loss_type="dft"', ""),
    "sft, plain loss": (_SFT, 'loss_type="nll"', ""),
    "sft, smoothing": (_SFT, "label_smoothing_factor=0.1", ""),
    "sft, dtype": (_SFT, 'model_init_kwargs={"dtype": "bfloat16"}', ""),
    "sft, evaluation": (_SFT, 'eval_strategy="steps", eval_steps=1', "eval_dataset=data"),
    "sft, formatted": (_SFT, "", 'formatting_func=lambda row: row["text"]'),
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
    "dpo, ipo": (_DPO, 'loss_type="ipo"', ""),
    "dpo, beta of zero": (_DPO, "beta=0.0", ""),
    "dpo, precomputed": (_DPO, "precompute_ref_log_probs=True", ""),
    "kto": (_KTO, "", ""),
    "kto, config": (_KTO, "", "peft_config=config"),
    "dpo, beta": (_DPO, "", "beta=0.1"),
}
#: what follows the training
ENDS: dict[str, str] = {
    "nothing": "",
    "saved": "model.save_pretrained(folder)",
    "trainer saved": "trainer.save_model(folder)",
    "merged": "model = model.merge_and_unload()\nmodel.save_pretrained(folder)",
    "loaded again": "model.save_pretrained(folder)\nmodel = {class}.from_pretrained(folder)",
    "merged and loaded again": "model = model.merge_and_unload()\nmodel.save_pretrained(folder)\n"
    "model = {class}.from_pretrained(folder)",
    "generated": "model.eval()\nmodel.generate(input_ids=torch.tensor([[10, 11, 12]]), max_new_tokens=2)",
    "state saved": 'torch.save(model.state_dict(), "adapter.pt")',
    "resumed": "trainer.train(resume_from_checkpoint=True)",
    "adapters loaded again": "model.save_pretrained(folder)\nmodel = PeftModel.from_pretrained(model.unload(), folder)",
}
TEXT = "10 11 5 6 14 15 16 17"
_TOKENS = "[int(token) for token in text.split()]"
_SAID = '[{"role": "user", "content": text}, {"role": "assistant", "content": " 20 21"}]'
_PROMPTS = 'data = Dataset.from_list([{"prompt": text, "completion": " 20 21"}] * 4)'
_MESSAGES = f'data = Dataset.from_list([{{"messages": {_SAID}}}] * 4)'
#: Trainer or loop -> the line that makes its data; the one of the loop counts
DATA = {
    _LM: "data = Dataset.from_dict({name: values.tolist() for name, values in batch.items()})",
    _SFT: 'data = Dataset.from_list([{"text": text}] * 4)',
    _DPO: 'data = Dataset.from_list([{"prompt": text, "chosen": " 20 21 22", "rejected": " 23 24 25"}] * 4)',
    _KTO: 'data = Dataset.from_list([{"prompt": text, "completion": " 20 21", "label": label} for label in (True, False)] * 2)',
    "sft, prompts": _PROMPTS,
    "sft, prompts, all tokens": _PROMPTS,
    "sft, messages": _MESSAGES,
    "sft, assistant only": _MESSAGES,
    "sft, tokens": f'data = Dataset.from_list([{{"input_ids": {_TOKENS}}}] * 4)',
    "sft, labels ignored": f'data = Dataset.from_list([{{"input_ids": {_TOKENS}, "labels": [-100] * 8}}] * 4)',
}
TEXT_LINE = f'text = "{TEXT}"'
