"""The memory table against real steps: bytes kept for backward, and the peak of a step.

    python -m benchmarks.cost.memory [--cuda] [--json FILE]

On the CPU, twelve tiny quantized architectures take a real step under ``saved_tensors_hooks``, and one under torch's
profiler, which records every allocation. With ``--cuda``, a Llama of 1.1B parameters takes two real steps on the GPU,
and ``torch.cuda.max_memory_allocated`` is compared with the table. The exit code is 1 if a goal is missed.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import tempfile
import warnings
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
warnings.simplefilter("ignore")
import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks.goals import Goal, leave
from kbitlint.context import TrainingContext
from kbitlint.memory_result import ON
from kbitlint.model.batch import loss_of, training_batch
from kbitlint.model.inspect.walk import collect
from kbitlint.model.memory.live_bytes import LiveBytes
from kbitlint.model.memory.step_memory import measure
from kbitlint.model.trace.cost import run_twin
from kbitlint.model.trace.trace import trace
from kbitlint.model.trace.twin import twin_of
from kbitlint.step_plan import StepPlan
from tests.support import tiny

BATCH, SEQ_LEN = 4, 64
CONTEXT = TrainingContext(autocast_dtype="float32", batch_size=BATCH, seq_len=SEQ_LEN)
SAVED, PEAK = "bytes kept for backward", "peak of a step"
#: the largest allowed deviation from the real bytes, as a share
GOALS = {SAVED: 0.02, PEAK: 0.10}


def adapted(family, *, checkpointed):
    """Return a quantized model with LoRA, and with norms and other weights as loaded."""
    model = tiny.load(family)
    model.requires_grad_(requires_grad=False)
    if checkpointed:
        from kbitlint.model.layers.checkpointing import enable

        enable(model, use_reentrant=False)
    return tiny.with_lora(model)


def saved_bytes(model):
    """Return the bytes that a real forward pass keeps for backward: each storage once, without the model's own."""
    own = {tensor.untyped_storage().data_ptr() for tensor in (*model.parameters(), *model.buffers())}
    kept = {}

    def pack(tensor):
        kept.setdefault(tensor.untyped_storage().data_ptr(), tensor.untyped_storage())
        return tensor

    model.train()
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss_of(model(**training_batch(model, "cpu", BATCH, SEQ_LEN)))
    return sum(storage.nbytes() for address, storage in kept.items() if address not in own)


def real_peak(model):
    """Return the most bytes allocated at once in a second real step, without the weights."""
    batch = training_batch(model, "cpu", BATCH, SEQ_LEN)
    model.train()
    loss_of(model(**batch)).backward()
    model.zero_grad(set_to_none=True)
    with silenced(), profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        loss_of(model(**batch)).backward()
    model.zero_grad(set_to_none=True)
    now = most = 0
    for event in sorted(profiler.profiler.kineto_results.events(), key=lambda event: event.start_ns()):
        if event.name() == "[memory]":
            now += event.nbytes()
            most = max(most, now)
    return most


@contextlib.contextmanager
def silenced():
    """Redirect the stderr of the process to /dev/null, because torch's profiler writes to it."""
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def simulated_peak(model):
    live = LiveBytes()
    run_twin(twin_of(model), CONTEXT, facts=collect(model), live=live, device="cpu")
    return live.peak


def on_cpu():
    """Yield (figure, model, traced / real) for each tiny architecture, without and with checkpointing."""
    for family in tiny.FAMILIES:
        for checkpointed in (False, True):
            model = adapted(family, checkpointed=checkpointed)
            how = f"{family}, {'checkpointed' if checkpointed else 'no checkpointing'}"
            traced = trace(model, CONTEXT, device="cpu", batch=BATCH, seq_len=SEQ_LEN).saved_bytes
            yield SAVED, how, traced / saved_bytes(model)
            yield PEAK, how, simulated_peak(model) / real_peak(model)


def on_cuda():
    """Yield (figure, model, traced / real) of the peak of a checkpointed 1.1B Llama on the GPU."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        hidden_size=2048,
        intermediate_size=5632,
        num_hidden_layers=22,
        num_attention_heads=32,
        num_key_value_heads=4,
        vocab_size=32000,
        dtype=torch.bfloat16,
    )
    with tempfile.TemporaryDirectory() as folder:
        LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(folder)
        model = LlamaForCausalLM.from_pretrained(
            folder, quantization_config=tiny.quantization(), device_map={"": 0}, dtype=torch.bfloat16
        )
    model.requires_grad_(requires_grad=False)
    model.activation_checkpointing_enable({"use_reentrant": False})
    model = tiny.with_lora(model, r=16)
    model.train()
    optimizer = torch.optim.AdamW([parameter for parameter in model.parameters() if parameter.requires_grad])
    for seq_len in (1024, 2048):
        batch = training_batch(model, "cuda", 1, seq_len)
        for _ in range(2):
            torch.cuda.reset_peak_memory_stats()
            loss_of(model(**batch)).backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        real = torch.cuda.max_memory_allocated()
        context = TrainingContext(autocast_dtype="float32", batch_size=1, seq_len=seq_len)
        told = measure("as it is", model, context, StepPlan(), modes=(ON,)).steps[ON].peak
        yield PEAK, f"1.1B Llama, {seq_len} tokens, {torch.cuda.get_device_name()}", told / real


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cuda", action="store_true", help="compare with a GPU instead")
    parser.add_argument("--json", type=Path, help="also write the figures there")
    options = parser.parse_args()
    if options.cuda and not torch.cuda.is_available():
        parser.error("--cuda: there is no CUDA here")
    ratios = {}
    for what, model, ratio in on_cuda() if options.cuda else on_cpu():
        ratios.setdefault(what, {})[model] = round(ratio, 4)
        print(f"{what}: {model:<48}{ratio:>7.3f} of a real one", flush=True)
    return leave(goals(ratios), options.json, ratios=ratios)


def goals(ratios):
    """Yield a goal for each figure: the largest deviation of all models."""
    for what, found in ratios.items():
        farthest = max(abs(ratio - 1) for ratio in found.values())
        yield Goal(f"{what}, traced against real: farthest of {len(found)}", farthest, GOALS[what], "%")


if __name__ == "__main__":
    sys.exit(main())
