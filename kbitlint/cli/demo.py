"""The main job on a tiny Llama with random weights, from load to one training step.

Imports of torch and transformers are inside functions, behind the line that names the extra if they are not installed.
"""

from __future__ import annotations

import math
import tempfile
import warnings
from typing import TYPE_CHECKING, Any

from kbitlint import api
from kbitlint.extras import load_bitsandbytes, load_peft, require_model_extra
from kbitlint.output import text

if TYPE_CHECKING:
    from collections.abc import Callable

#: the Llama architecture at a size that quantizes and trains in a second on a CPU
CONFIG = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 256,
    "max_position_embeddings": 128,
    "tie_word_embeddings": False,
}
SEED = 0


def run(device: str | None, show: Callable[[str], None], *, color: bool = False, width: int = 80) -> int:
    """Run the main job, show each step, and return the exit code: 0 if every step succeeded, 2 if one failed."""
    require_model_extra("the demo")
    warnings.simplefilter("ignore", FutureWarning)  # PEFT still calls a name that transformers 5.23 renamed
    peft = load_peft("the demo's LoRA step")
    import torch

    from kbitlint.model.devices import usable  # imports torch

    device = usable(device) if device is not None else "cuda" if torch.cuda.is_available() else "cpu"
    show(f"1. A Llama with seeded random weights, quantized to nf4 by bitsandbytes on {device}\n")
    model = _quantized_llama(device)
    report = api.check(model)
    show("2. Audit it as loaded\n")
    show(_indented(text.render(report, color=color, width=width - 3)))
    show("\n3. Fix it\n")
    fixed = api.fix(model, probe=True)
    show(_indented(text.render(fixed, color=color, width=width - 3)))
    show("\n4. Attach LoRA and take one real training step\n")
    config = peft.LoraConfig(r=8, target_modules="all-linear", task_type="CAUSAL_LM", init_lora_weights=False)
    adapted = peft.get_peft_model(model, config)
    adapted.train()
    failures, expected = _step(adapted, device, show)
    clean = not fixed.violations and fixed.exit_code() == 0
    if not report.violations or not clean or failures:
        show("\nthe demo failed: see above")
        return 2
    show(f"\nThe model was audited, fixed and proven: {expected} of {expected} adapter parameters learn.")
    return 0


def _quantized_llama(device: str) -> Any:
    load_bitsandbytes("the demo")
    import torch
    from transformers import BitsAndBytesConfig, LlamaConfig, LlamaForCausalLM
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    torch.manual_seed(SEED)
    with tempfile.TemporaryDirectory() as folder:
        LlamaForCausalLM._from_config(LlamaConfig(**CONFIG), dtype=torch.bfloat16).save_pretrained(folder)  # noqa: SLF001  # from_config of a concrete class
        quantization = BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.bfloat16, bnb_4bit_use_double_quant=True
        )
        return LlamaForCausalLM.from_pretrained(
            folder, quantization_config=quantization, device_map={"": device}, dtype=torch.bfloat16
        )


def _step(model: Any, device: str, show: Callable[[str], None]) -> tuple[list[str], int]:
    """Run one forward, backward and optimizer step; return the parameters without a finite gradient, and the number of all."""
    import torch

    from kbitlint.model.batch import training_batch

    torch.manual_seed(SEED)
    trainable = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    optimizer = torch.optim.AdamW(trainable.values(), lr=1e-3)
    before = {name: parameter.detach().clone() for name, parameter in trainable.items()}
    batch = training_batch(model, device)
    loss = model(**batch).loss
    loss.backward()
    failed = [name for name, p in trainable.items() if p.grad is None or not bool(p.grad.isfinite().all())]
    show(f"   loss {loss.item():.4f}")
    show(f"   finite gradients for {len(trainable) - len(failed)} of {len(trainable)} adapter parameters")
    optimizer.step()
    moved = sum(not torch.equal(before[name], parameter) for name, parameter in trainable.items())
    show(f"   changed by the optimizer: {moved} of {len(trainable)}")
    if not math.isfinite(loss.item()):
        failed.append("loss")
    return failed, len(trainable)


def _indented(value: str) -> str:
    return "\n".join(f"   {line}".rstrip() for line in value.splitlines())
