"""The memory of a rank against real ranks: DDP and FSDP2 over gloo on the CPU.

    python -m benchmarks.cost.ranks [--json FILE]

2 and 4 processes train six tiny quantized architectures together, with and without checkpointing. The peak of a rank is what
it holds between two steps, and what torch's profiler records of the allocator in a later one. accelerate shards for FSDP2.
The predicted figure is that of ``kbitlint memory --gpus N --strategy NAME``, with the CPU's kernels. A stopped run goes on
from ``benchmarks/ranks.jsonl``. The exit code is 1 if a goal is missed.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import warnings
from pathlib import Path
from types import SimpleNamespace

os.environ.setdefault("HF_HUB_OFFLINE", "1")
warnings.simplefilter("ignore")

from benchmarks.goals import Goal, leave
from tests.support import gloo
from tests.support.allocations import peak_of, tensors_of

RECORD = Path(__file__).parents[1] / "ranks.jsonl"
BATCH, SEQ_LEN = 1, 32
WORLDS, STRATEGIES, MODES = (2, 4), ("ddp", "fsdp2"), (False, True)
_TEXT = {
    "hidden_size": 256,
    "intermediate_size": 512,
    "num_hidden_layers": 6,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 2048,
    "max_position_embeddings": 128,
    "pad_token_id": 0,
    "tie_word_embeddings": False,
}
_EXPERTS = {"head_dim": 64, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 64}
#: name -> (class of the model, class of the config, its values)
FAMILIES = {
    "llama": ("LlamaForCausalLM", "LlamaConfig", _TEXT),
    "qwen2, tied": ("Qwen2ForCausalLM", "Qwen2Config", {**_TEXT, "tie_word_embeddings": True}),
    "mistral": ("MistralForCausalLM", "MistralConfig", {**_TEXT, "sliding_window": 16}),
    "gpt_neox": (
        "GPTNeoXForCausalLM",
        "GPTNeoXConfig",
        {name: value for name, value in _TEXT.items() if name != "num_key_value_heads"},
    ),
    "qwen3_moe": ("Qwen3MoeForCausalLM", "Qwen3MoeConfig", {**_TEXT, **_EXPERTS}),
    "gemma3": ("Gemma3ForCausalLM", "Gemma3TextConfig", {**_TEXT, "head_dim": 64, "sliding_window": 16}),
}
#: the largest allowed deviation of a rank's peak, as a share
GOAL = 0.10


def save_checkpoint(family, folder):
    """Write a random checkpoint of a family."""
    import torch
    import transformers

    name, config, values = FAMILIES[family]
    torch.manual_seed(0)
    made = getattr(transformers, config)(**values)
    getattr(transformers, name)._from_config(made, dtype=torch.bfloat16).save_pretrained(folder)  # noqa: SLF001  # as tests.support.tiny


def adapted(family, folder):
    """Return a quantized model with LoRA whose packed weights can be sharded."""
    import torch
    import transformers

    from tests.support import tiny

    method = tiny.quantization(bnb_4bit_quant_storage=torch.bfloat16)
    cls = getattr(transformers, FAMILIES[family][0])
    model = cls.from_pretrained(folder, quantization_config=method, device_map={"": "cpu"}, dtype=torch.bfloat16)
    return tiny.with_lora(model.requires_grad_(requires_grad=False), r=8).train()


def held(ready, optimizer):
    """Return the bytes that a rank holds between two steps: each storage once, and DDP's buckets."""
    local = [tensor.to_local() if hasattr(tensor, "to_local") else tensor for tensor in tensors_of(ready, optimizer)]
    storages = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in local}
    logged = ready._get_ddp_logging_data() if hasattr(ready, "_get_ddp_logging_data") else {}  # noqa: SLF001  # torch's own record
    sizes = logged.get("rebuilt_bucket_sizes") or logged.get("bucket_sizes", "")
    return sum(storages.values()) + sum(int(size) for size in sizes.split(",") if size.strip())


def wrapped(model, strategy):
    """Return a model as the launch trains it."""
    from torch.nn.parallel import DistributedDataParallel

    return DistributedDataParallel(model) if strategy == "ddp" else sharded(model)


def sharded(model):
    """Return a model that accelerate sharded with FSDP2."""
    import torch
    from accelerate.utils import FullyShardedDataParallelPlugin
    from accelerate.utils.fsdp_utils import fsdp2_prepare_model

    from kbitlint.model.layers.adapters import base_of

    plugin = FullyShardedDataParallelPlugin(
        fsdp_version=2,
        auto_wrap_policy="transformer_based_wrap",
        transformer_cls_names_to_wrap=list(base_of(model)._no_split_modules),  # noqa: SLF001  # accelerate reads it too
        cpu_ram_efficient_loading=False,
    )
    plugin.set_auto_wrap_policy(model)
    stand_in = SimpleNamespace(
        state=SimpleNamespace(fsdp_plugin=plugin),
        torch_device_mesh=None,
        parallelism_config=None,
        device=torch.device("cpu"),
        is_main_process=True,
        mixed_precision="no",
        distributed_type=None,
    )
    return fsdp2_prepare_model(stand_in, model)


def real_peak(model, strategy, *, checkpointed):
    """Return the most bytes of torch's allocator in a step of a rank, with what it holds between two steps.

    DDP arranges its buckets anew in the second step, so later ones are measured. The median of five is taken: the profiler may
    lose records of a step, and a thread of gloo that is not woken yet may hold a finished transfer's buffers longer.
    """
    import torch

    from kbitlint.model.batch import loss_of, training_batch
    from kbitlint.model.layers.adapters import base_of
    from kbitlint.model.layers.checkpointing import enable

    if checkpointed:
        enable(base_of(model), use_reentrant=False)
    batch = training_batch(model, "cpu", BATCH, SEQ_LEN)
    ready = wrapped(model, strategy)
    optimizer = torch.optim.AdamW([parameter for parameter in ready.parameters() if parameter.requires_grad])

    def step():
        loss_of(ready(**batch)).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    for _ in range(2):
        step()
    return held(ready, optimizer) + statistics.median(peak_of(ready, step) for _ in range(5))


def told_peak(model, strategy, world, *, checkpointed):
    """Return the peak of a rank that kbitlint gives for a model before it is wrapped."""
    from kbitlint.context import TrainingContext
    from kbitlint.context.launch import Launch
    from kbitlint.memory_result import OFF, ON
    from kbitlint.model.memory.ranks import Rank, units_of
    from kbitlint.model.memory.step_memory import measure
    from kbitlint.step_plan import StepPlan

    context = TrainingContext(autocast_dtype="float32", batch_size=BATCH, seq_len=SEQ_LEN)
    mode = ON if checkpointed else OFF
    rank = Rank(Launch(strategy, world), units_of(model))
    return measure("", model, context, StepPlan(), modes=(mode,), rank=rank, device="cpu").steps[mode]


def run_rank(place, *families):
    """Train families in each way, as one rank of a group, and write the peaks."""
    import torch
    import torch.distributed as dist

    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    rank, world = dist.get_rank(), dist.get_world_size()
    for family in families:
        folder = Path(place) / family
        found = []
        for strategy in STRATEGIES:
            for checkpointed in MODES:
                told = told_peak(adapted(family, folder), strategy, world, checkpointed=checkpointed) if rank == 0 else None
                dist.barrier()
                real = real_peak(adapted(family, folder), strategy, checkpointed=checkpointed)
                found.append((strategy, checkpointed, real, None if told is None else (told.peak, told.peak_at)))
                dist.barrier()
        (folder / f"rank{rank}.json").write_text(json.dumps(found))
    dist.destroy_process_group()


def peaks_of(families, world):
    """Yield the records of families on so many ranks: strategy, checkpointed, the real peak of each rank, the predicted one."""
    with tempfile.TemporaryDirectory() as place:
        for family in families:
            save_checkpoint(family, Path(place) / family)
        done = gloo.finish(gloo.start(["-m", "benchmarks.cost.ranks", "--rank", place, *families], world), timeout=1800)
        if any(code for code, _, _ in done):
            last = [errors[-1500:] for code, _, errors in done if code]
            raise SystemExit("\n".join([f"{', '.join(families)} on {world} ranks:", *last]))
        for family in families:
            ranks = [json.loads((Path(place) / family / f"rank{rank}.json").read_text()) for rank in range(world)]
            for number, (strategy, checkpointed, _, told) in enumerate(ranks[0]):
                yield {
                    "family": family,
                    "ranks": world,
                    "strategy": strategy,
                    "checkpointed": checkpointed,
                    "real": [rank[number][2] for rank in ranks],
                    "told": told[0],
                    "at": told[1],
                }


def records():
    """Yield the record of each case; those of an earlier run are read from the file."""
    known = [json.loads(line) for line in RECORD.read_text().splitlines()] if RECORD.exists() else []
    yield from known
    there = {(record["family"], record["ranks"]) for record in known}
    for world in WORLDS:
        for family in FAMILIES:
            if (family, world) not in there:
                made = list(peaks_of([family], world))
                with RECORD.open("a") as file:
                    file.writelines(json.dumps(record) + "\n" for record in made)
                yield from made


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, help="also write the figures there")
    parser.add_argument("--rank", nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.rank:
        run_rank(*options.rank)
        return 0
    ratios = {strategy: {} for strategy in STRATEGIES}
    for record in records():
        how = f"{record['family']}, {record['ranks']} ranks, {'checkpointed' if record['checkpointed'] else 'no checkpointing'}"
        for rank, real in enumerate(record["real"]):
            ratios[record["strategy"]][f"{how}, rank {rank}"] = record["told"] / real
        told = " ".join(f"{record['told'] / real:.3f}" for real in record["real"])
        print(f"{record['strategy']:<6}{how:<44}{record['told'] / 1e6:8.2f} MB told, of each rank {told}", flush=True)
    return leave(goals(ratios), options.json, ratios=ratios)


def goals(ratios):
    """Yield a goal for each strategy: the farthest rank."""
    for strategy, found in ratios.items():
        farthest = max(abs(ratio - 1) for ratio in found.values())
        yield Goal(f"peak of a rank under {strategy}, told against real: farthest of {len(found)} ranks", farthest, GOAL, "%")


if __name__ == "__main__":
    sys.exit(main())
