"""Checkpoint folders for the tests of rules on files.

Headers and bytes are written by hand, so no torch is needed.
"""

from __future__ import annotations

import json
import math

from kbitlint.facts.checkpoint import BITS

BNB = {"quant_method": "bitsandbytes", "load_in_4bit": True, "llm_int8_skip_modules": None}


def save(path, tensors, fill=0):
    """Write a safetensors file of name -> (dtype, shape) or (dtype, shape, byte), and return its path.

    The byte fills the tensor; ``fill`` is its default.
    """
    header, end, data = {}, 0, b""
    for name, (dtype, shape, *byte) in tensors.items():
        size = math.prod(shape) * BITS[dtype] // 8
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [end, end + size]}
        data += bytes([byte[0] if byte else fill]) * size
        end += size
    content = json.dumps(header).encode()
    path.write_bytes(len(content).to_bytes(8, "little") + content + data)
    return path


def packed(module, bits=4, scale=1):
    """Return the tensors of a module that bitsandbytes has packed to 4 or 8 bits. The byte ``scale`` fills its scales."""
    if bits == 8:
        return {f"{module}.weight": ("I8", (4, 4)), f"{module}.SCB": ("F32", (4,), scale)}
    weight = f"{module}.weight"
    return {
        weight: ("U8", (8, 1)),
        f"{weight}.absmax": ("F32", (1,), scale),
        f"{weight}.quant_map": ("F32", (16,)),
        f"{weight}.quant_state.bitsandbytes__nf4": ("U8", (20,)),
    }


def floats(*modules, dtype="BF16"):
    """Return the tensors of modules with matrices in floating point."""
    return {f"{module}.weight": (dtype, (4, 4)) for module in modules}


def checkpoint(folder, tensors, quantization=None, **config):
    """Write the folder of a model, and return it. ``tensors=None`` writes no weights."""
    folder.mkdir(parents=True, exist_ok=True)
    content = {"model_type": "llama", **config} | ({"quantization_config": quantization} if quantization is not None else {})
    (folder / "config.json").write_text(json.dumps(content, indent=2) + "\n")
    if tensors is not None:
        save(folder / "model.safetensors", tensors)
    return folder


def adapter(folder, tensors, base="base", **config):
    """Write the folder of an adapter, and return it. ``tensors=None`` writes no weights."""
    folder.mkdir(parents=True, exist_ok=True)
    content = {"peft_type": "LORA", "base_model_name_or_path": str(base), **config}
    (folder / "adapter_config.json").write_text(json.dumps(content))
    if tensors is not None:
        save(folder / "adapter_model.safetensors", tensors)
    return folder


def lora(module, byte=1):
    """Return the tensors of LoRA on a module. ``byte`` fills ``lora_B``."""
    name = f"base_model.model.{module}"
    return {f"{name}.lora_A.weight": ("F32", (2, 4), 1), f"{name}.lora_B.weight": ("F32", (4, 2), byte)}


def findings(code, folder):
    """Return (severity, location, message) of each violation of a rule in the files of a folder."""
    from kbitlint import engine
    from kbitlint.context import TrainingContext
    from kbitlint.files.checkpoint import read_checkpoint
    from kbitlint.registry import find
    from kbitlint.violation import Surface

    outcome = engine.run((find(code),), {Surface.FILES: read_checkpoint(folder)}, TrainingContext())
    assert not outcome.crashes, outcome.crashes
    return [(v.severity.value, str(v.at), v.message) for v in outcome.violations]


def skipped(code, folder):
    """Return the reasons for which a rule skips a folder."""
    from kbitlint import engine
    from kbitlint.context import TrainingContext
    from kbitlint.files.checkpoint import read_checkpoint
    from kbitlint.registry import find
    from kbitlint.violation import Surface

    outcome = engine.run((find(code),), {Surface.FILES: read_checkpoint(folder)}, TrainingContext())
    return [skip.reason for skip in outcome.skips]


def reconfigured(folder, change):
    """Return a folder whose config.json a function has changed."""
    path = folder / "config.json"
    config = json.loads(path.read_text())
    change(config)
    path.write_text(json.dumps(config))
    return folder
