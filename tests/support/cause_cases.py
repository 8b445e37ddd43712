"""Models that show a root cause, and what kbitlint says of them, for ``tests/causes``."""

from __future__ import annotations

import checkpoint_cases
import tiny
import torch
from peft import LoraConfig, get_peft_model

import kbitlint
from kbitlint.context import TrainingContext

LAYERS = ["model.layers.0", "model.layers.1"]
Q_PROJ = [f"{layer}.self_attn.q_proj" for layer in LAYERS]
LLAVA = "llava (vision-language)"
LORA = {"r": 4, "target_modules": ["q_proj", "v_proj"]}


def adapted(model, **config):
    return get_peft_model(model, LoraConfig(**{**LORA, **config}))


def said(model, *codes, optimizer=None, **context):
    """Every violation of these rules, as (code, path, severity)."""
    found = kbitlint.check(model, select=codes, optimizer=optimizer, context=TrainingContext(**context)).violations
    return [(v.code, v.at.path, v.severity.value) for v in found]


def said_of_files(folder, *codes):
    """Every violation of these rules in the files of a folder, as (code, place, severity)."""
    return [(code, place, severity) for code in codes for severity, place, _ in checkpoint_cases.findings(code, folder)]


def each(code, paths, severity):
    return [(code, path, severity) for path in paths]


def reentrant(model, *, hook=False):
    """The model, frozen, with reentrant checkpoints and perhaps a hook on its text embeddings."""
    model.requires_grad_(requires_grad=False)
    tiny.bind_reentrant(model, use_reentrant=True)
    if hook:
        model.get_input_embeddings().register_forward_hook(lambda module, args, output: output.requires_grad_())
    return model


def built(cls, config, folder, **quantization):
    """A random checkpoint of a class, loaded as nf4 from a folder."""
    torch.manual_seed(0)
    cls._from_config(config, dtype=torch.bfloat16).save_pretrained(folder)
    arguments = tiny.quantization(**quantization)
    return cls.from_pretrained(folder, quantization_config=arguments, device_map="cpu", dtype=torch.bfloat16)


def idle(model, batch):
    """The trainable parameters without a gradient after a real step on a batch, or the error."""
    try:
        model.train()(**batch).loss.backward()
    except RuntimeError as error:
        return str(error)
    return [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None]


def logits(model):
    with torch.no_grad():
        return model.eval()(torch.arange(1, 21)[None]).logits.float()


# -------------------------------------------------------------------------------------- gradients and checkpoints
