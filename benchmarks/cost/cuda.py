"""Memory and time of real training steps on a GPU. It imports nothing of this repository, and prints one JSON.

    python cuda.py [--geometry NAME] [--seconds N] [--lines FILE] > cuda.json

Needs torch, transformers, peft and bitsandbytes. Each geometry gets random weights, which are written to ``--scratch`` and
loaded through ``from_pretrained`` in each quantization. In every set-up LoRA of rank 16 is on all linear layers but the head.
Two steps run before the measured one, so that the optimizer holds its state. Bytes are those of torch's allocator:
``allocated`` the most that tensors held, ``reserved`` the most that it took from the card.

Set-ups that do not start within ``--seconds`` are named under ``left_out``.
"""

from __future__ import annotations

import argparse
import dataclasses
import gc
import json
import os
import sys
import tempfile
import time
import warnings
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
warnings.simplefilter("ignore")

import bitsandbytes
import peft
import torch
import transformers
from peft import LoraConfig, get_peft_model, prepare_model_for_kbit_training
from transformers import BitsAndBytesConfig

if TYPE_CHECKING:
    from collections.abc import Iterator

#: name -> (family, sizes of its config)
GEOMETRIES: dict[str, tuple[str, dict[str, Any]]] = {
    "Llama-3-8B": (
        "Llama",
        {
            "hidden_size": 4096,
            "intermediate_size": 14336,
            "num_hidden_layers": 32,
            "num_attention_heads": 32,
            "num_key_value_heads": 8,
            "vocab_size": 128256,
            "max_position_embeddings": 8192,
        },
    ),
    "Qwen2.5-0.5B": (
        "Qwen2",
        {
            "hidden_size": 896,
            "intermediate_size": 4864,
            "num_hidden_layers": 24,
            "num_attention_heads": 14,
            "num_key_value_heads": 2,
            "vocab_size": 151936,
            "max_position_embeddings": 32768,
            "tie_word_embeddings": True,
        },
    ),
    "Mixtral, 4 layers": (
        "Mixtral",
        {
            "hidden_size": 2048,
            "intermediate_size": 4096,
            "num_hidden_layers": 4,
            "num_attention_heads": 16,
            "num_key_value_heads": 4,
            "vocab_size": 32000,
            "num_local_experts": 8,
            "num_experts_per_tok": 2,
        },
    ),
    "GPT-NeoX-1B": (
        "GPTNeoX",
        {
            "hidden_size": 2048,
            "intermediate_size": 8192,
            "num_hidden_layers": 16,
            "num_attention_heads": 16,
            "vocab_size": 50432,
            "max_position_embeddings": 2048,
        },
    ),
}


@dataclass(frozen=True)
class Setup:
    """The conditions of one measured step."""

    quantize: str = "nf4"
    """``nf4``, ``nf4-double`` or ``int8``."""
    batch: int = 1
    seq_len: int = 2048
    checkpointing: bool = True
    optimizer: str = "adamw"
    """``adamw``, ``adamw_8bit`` or ``paged_adamw_8bit``."""
    dropout: float = 0.0
    """The dropout of LoRA."""
    dora: bool = False
    attention: str = "sdpa"
    autocast: bool = False
    """Whether the forward pass runs under bfloat16 autocast."""
    keeps_outputs: bool = False
    """Whether the loop holds the model's outputs until the step ends, as ``outputs = model(...)`` does."""
    peft_prepare: bool = False
    """Whether PEFT's ``prepare_model_for_kbit_training`` runs first."""
    accumulation: int = 1
    """Batches before each step of the optimizer."""

    def name(self) -> str:
        differs = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        usual = Setup()
        return ", ".join(f"{key}={value}" for key, value in differs.items() if value != getattr(usual, key)) or "usual"


#: in the order of what one would miss first
LARGE = (
    Setup(),
    Setup(checkpointing=False),
    Setup(batch=4, seq_len=1024),
    Setup(optimizer="paged_adamw_8bit"),
    Setup(checkpointing=False, batch=4, seq_len=1024),
    Setup(checkpointing=False, optimizer="paged_adamw_8bit"),
    Setup(batch=4, seq_len=1024, optimizer="paged_adamw_8bit"),
    Setup(checkpointing=False, batch=4, seq_len=1024, optimizer="paged_adamw_8bit"),
    Setup(keeps_outputs=True),
    Setup(checkpointing=False, dropout=0.05),
    Setup(dropout=0.05),
    Setup(autocast=True),
    Setup(dora=True),
    Setup(checkpointing=False, attention="eager"),
    Setup(attention="eager"),
    Setup(accumulation=2),
    Setup(optimizer="adamw_8bit"),
    Setup(seq_len=512),
    Setup(seq_len=8192),
    Setup(quantize="nf4", peft_prepare=True),
    Setup(quantize="nf4", peft_prepare=True, autocast=True),
    Setup(quantize="nf4", peft_prepare=True, checkpointing=False),
    Setup(quantize="nf4-double"),
    Setup(quantize="int8"),
    Setup(quantize="int8", checkpointing=False),
)
SMALL = (
    Setup(),
    Setup(checkpointing=False),
    Setup(keeps_outputs=True),
    Setup(autocast=True),
    Setup(peft_prepare=True),
    Setup(seq_len=512),
)
#: steps before the measured one, in which the optimizer makes its state
WARM_UP = 2


def written(geometry: str, folder: Path) -> None:
    """Write a checkpoint with random weights in bfloat16."""
    family, sizes = GEOMETRIES[geometry]
    config = getattr(transformers, f"{family}Config")(**{"tie_word_embeddings": False, **sizes}, pad_token_id=0)
    transformers.set_seed(0)
    with torch.device("cuda"):
        cls = getattr(transformers, f"{family}ForCausalLM")
        model = cls._from_config(config, dtype=torch.bfloat16)  # the way to a dtype
    model.save_pretrained(folder)


def quantization(name: str) -> BitsAndBytesConfig:
    if name == "int8":
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_compute_dtype=torch.bfloat16,
        bnb_4bit_use_double_quant=name == "nf4-double",
    )


def loaded(folder: Path, setup: Setup) -> Any:
    config = transformers.AutoConfig.from_pretrained(folder)
    cls = getattr(transformers, config.architectures[0])
    return cls.from_pretrained(
        folder,
        quantization_config=quantization(setup.quantize),
        device_map={"": 0},
        dtype=torch.bfloat16,
        attn_implementation=setup.attention,
    )


def optimizer_of(name: str, parameters: list[torch.nn.Parameter]) -> torch.optim.Optimizer:
    classes = {
        "adamw": torch.optim.AdamW,
        "adamw_8bit": bitsandbytes.optim.AdamW8bit,
        "paged_adamw_8bit": bitsandbytes.optim.PagedAdamW8bit,
    }
    return classes[name](parameters, lr=1e-4)  # type: ignore[no-any-return]


def emptied() -> None:
    gc.collect()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()


def measured(base: Any, setup: Setup) -> dict[str, Any]:
    """Train a loaded model for three steps, and return the bytes and the seconds of the last."""
    if setup.peft_prepare:
        base = prepare_model_for_kbit_training(base, use_gradient_checkpointing=False)
    base.requires_grad_(requires_grad=False)
    base.config._attn_implementation = setup.attention  # noqa: SLF001  # where transformers reads it at each call
    if setup.checkpointing:
        base.gradient_checkpointing_enable({"use_reentrant": False})
    else:
        base.gradient_checkpointing_disable()
    base_bytes = torch.cuda.memory_allocated()
    transformers.set_seed(0)
    lora = LoraConfig(r=16, target_modules="all-linear", lora_dropout=setup.dropout, use_dora=setup.dora, task_type="CAUSAL_LM")
    model = get_peft_model(base, lora).train()
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = optimizer_of(setup.optimizer, trained)
    tokens = torch.randint(5, base.config.vocab_size - 5, (setup.batch, setup.seq_len), device="cuda")
    batch = {"input_ids": tokens, "attention_mask": torch.ones_like(tokens), "labels": tokens.clone()}
    held: list[Any] = []
    loss = tokens

    def forward() -> torch.Tensor:
        with torch.autocast("cuda", torch.bfloat16) if setup.autocast else nullcontext():
            outputs = model(**batch, use_cache=False)
        if setup.keeps_outputs:
            held[:] = [outputs]
        return outputs.loss  # type: ignore[no-any-return]

    for number in range(WARM_UP + 1):
        if number == WARM_UP:
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
            before, start = torch.cuda.memory_allocated(), time.perf_counter()
        for _ in range(setup.accumulation):
            loss = forward()
            loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        value = float(loss.detach())
        del loss
        if number < WARM_UP:
            held.clear()
    torch.cuda.synchronize()
    result = {
        "base": base_bytes,
        "before": before,
        "allocated": torch.cuda.max_memory_allocated(),
        "reserved": torch.cuda.max_memory_reserved(),
        "seconds": round(time.perf_counter() - start, 4),
        "loss": value,
        "trained": sum(parameter.numel() for parameter in trained),
    }
    held.clear()
    model.unload()
    return result


def setups(geometry: str) -> tuple[Setup, ...]:
    return LARGE if geometry == "Llama-3-8B" else SMALL


def run(geometry: str, scratch: Path, deadline: float) -> Iterator[dict[str, Any]]:
    """Yield the figures of each set-up of a geometry, with an ``error`` where it failed."""
    with tempfile.TemporaryDirectory(dir=scratch) as place:
        folder = Path(place)
        written(geometry, folder)
        emptied()
        base, holds = None, None
        for setup in setups(geometry):
            if time.monotonic() > deadline:
                yield {"geometry": geometry, "setup": setup.name(), "left_out": True}
                continue
            line: dict[str, Any] = {"geometry": geometry, "setup": setup.name(), **dataclasses.asdict(setup)}
            try:
                if holds != (setup.quantize, setup.peft_prepare, setup.attention):
                    base = None
                    emptied()
                    start = time.perf_counter()
                    base = loaded(folder, setup)
                    loading = {"seconds": time.perf_counter() - start, "allocated": torch.cuda.max_memory_allocated()}
                    line |= {"loading": loading, "weights": torch.cuda.memory_allocated()}
                    holds = (setup.quantize, setup.peft_prepare, setup.attention)
                emptied()
                line |= measured(base, setup)
            except Exception as error:  # noqa: BLE001  # the figures of the other set-ups are worth having
                line["error"] = f"{type(error).__name__}: {error}"[:400]
                base, holds = None, None
            emptied()
            yield line


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--geometry", choices=GEOMETRIES, action="append", help="this one only; repeatable")
    parser.add_argument("--seconds", type=float, default=1800, help="no set-up starts after this time")
    parser.add_argument("--scratch", type=Path, default=Path(tempfile.gettempdir()), help="holds 17 GB for a while")
    parser.add_argument("--lines", type=Path, help="also write each result there as soon as it is known")
    options = parser.parse_args()
    if not torch.cuda.is_available():
        parser.error("there is no CUDA here")
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    deadline = time.monotonic() + options.seconds
    free = torch.cuda.mem_get_info()[0]
    torch.ones(8, 8, device="cuda") @ torch.ones(8, 8, device="cuda")
    context = free - torch.cuda.mem_get_info()[0] - torch.cuda.memory_reserved()
    lines: list[dict[str, Any]] = []
    for geometry in options.geometry or GEOMETRIES:
        for line in run(geometry, options.scratch, deadline):
            lines.append(line)
            print(line["geometry"], line["setup"], line.get("allocated", line.get("error")), file=sys.stderr, flush=True)
            if options.lines:
                with options.lines.open("a") as file:
                    file.write(json.dumps(line) + "\n")
    versions = {module.__name__: module.__version__ for module in (torch, transformers, peft, bitsandbytes)}
    device = {"name": torch.cuda.get_device_name(), "total": torch.cuda.mem_get_info()[1], "context": context}
    json.dump({"device": device, "versions": versions, "steps": lines}, sys.stdout, indent=1)
    print()
    return int(any("error" in line for line in lines))


if __name__ == "__main__":
    sys.exit(main())
