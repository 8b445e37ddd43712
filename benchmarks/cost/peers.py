"""What other estimators say of published peaks, beside the table: accelerate, and packages that estimate fine-tuning.

    python -m pip install --no-deps canifinetune==0.4.1 fitcheck-llm==0.3.1 ftuneai==0.4.1 fitscout==0.1.1
    python -m benchmarks.cost.peers [--json FILE]

Every published figure of one card is asked of each (``benchmarks.cost.published``). Each gets the geometry and the settings
that it takes: rank, targets, optimizer, checkpointing, double quantization, batch and length. Its answer is the total that it
reports, without a margin that it names as such. accelerate's answer is the cell ``int4`` of ``accelerate estimate-memory``,
which knows no batch. The exit code is 1 if another estimator is nearest more often than the table.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

from benchmarks.cost.published import GEOMETRIES, ROWS, told
from benchmarks.goals import Goal, leave
from kbitlint.fixes.lora import parse_lora
from kbitlint.upstream.cards import GIB

#: what --lora's ``all-linear`` means for Llama
ALL_LINEAR = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def names_of(row):
    """Return the geometry of a row by the names of its config."""
    names = (
        "hidden_size",
        "intermediate_size",
        "num_hidden_layers",
        "num_attention_heads",
        "num_key_value_heads",
        "vocab_size",
    )
    return dict(zip(names, GEOMETRIES[row.geometry], strict=True))


def parameters_of(row):
    """Return the number of parameters of a Llama."""
    hidden, intermediate, layers, heads, keys, vocabulary = GEOMETRIES[row.geometry]
    attention = 2 * hidden * hidden + 2 * hidden * (hidden // heads * keys)
    return layers * (attention + 3 * hidden * intermediate + 2 * hidden) + 2 * vocabulary * hidden + hidden


def targets_of(row):
    """Return (rank, targets) of a row's LoRA."""
    lora = parse_lora(row.lora)
    return lora.rank, ALL_LINEAR if lora.targets == "all-linear" else list(lora.targets)


def accelerate(row):
    import transformers
    from accelerate import init_empty_weights
    from accelerate.utils import calculate_maximum_sizes

    with init_empty_weights():
        model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**names_of(row), tie_word_embeddings=False))
    return calculate_maximum_sizes(model)[0] / 8


def canifinetune(row):
    from canifinetune.estimator.memory import EstimateRequest, estimate

    rank, targets = targets_of(row)
    shape = {**names_of(row), "family": "llama", "total_params": parameters_of(row), "tie_word_embeddings": False}
    request = EstimateRequest(
        model_id=row.geometry,
        gpu_vram_gb=80,
        method="qlora",
        quantization="nf4_double_quant" if "double" in row.quantize else "nf4",
        seq_len=row.tokens,
        micro_batch_size=row.batch,
        lora_rank=rank,
        lora_target_scope="all_linear" if len(targets) == len(ALL_LINEAR) else "conservative",
        optimizer="adamw_8bit" if "8bit" in row.optimizer else "adamw_torch",
        gradient_checkpointing=row.checkpointed,
        override=shape,
        use_network=False,
    )
    memory = estimate(request).memory
    return (memory.total_estimated_gb - memory.safety_margin_gb) * GIB


def fitcheck(row):
    import fitcheck as package

    rank, targets = targets_of(row)
    hidden, intermediate, layers, heads, keys, vocabulary = GEOMETRIES[row.geometry]
    sizes = (hidden, layers, heads, keys, intermediate, vocabulary, hidden // heads)
    shape = package.ModelConfig(row.geometry, parameters_of(row), *sizes, False)  # noqa: FBT003  # tied embeddings
    training = package.TrainingConfig(
        quantization="nf4",
        double_quant="double" in row.quantize,
        optimizer="adamw8bit" if "8bit" in row.optimizer else "adamw",
        batch_size=row.batch,
        seq_len=row.tokens,
        lora_rank=rank,
        lora_targets=targets,
        grad_checkpoint=row.checkpointed,
        flash_attn=True,
    )
    return package.estimate(shape, training, package.get_gpu("a100-80")).total_mib * 2**20


def ftuneai(row):
    from ftuneai.core import models
    from ftuneai.core.memory import MemoryEstimator

    rank, targets = targets_of(row)
    hidden, intermediate, layers, heads, keys, vocabulary = GEOMETRIES[row.geometry]
    spec = models.ModelSpec(row.geometry, parameters_of(row), hidden, layers, heads, keys, intermediate, vocabulary, 2**17)
    config = models.TrainingConfig(
        model=row.geometry,
        method=models.FineTuneMethod.QLORA,
        quantization=models.Quantization.INT4,
        batch_size=row.batch,
        seq_length=row.tokens,
        gradient_checkpointing=row.checkpointed,
        optimizer=models.OptimizerType.ADAM_8BIT if "8bit" in row.optimizer else models.OptimizerType.ADAMW,
        lora_rank=rank,
        lora_target=models.LoRATarget.ALL_LINEAR if len(targets) == len(ALL_LINEAR) else models.LoRATarget.ATTENTION,
        flash_attention=True,
    )
    return MemoryEstimator(spec, config).estimate().total_gb * GIB


def fitscout(row):
    from fitscout.memory.estimator import estimate_memory
    from fitscout.model.profile import ModelProfile

    hidden, intermediate, layers, heads, keys, vocabulary = GEOMETRIES[row.geometry]
    profile = ModelProfile(parameters_of(row), layers, hidden, heads, keys, intermediate, vocabulary, False)  # noqa: FBT003  # tied
    settings = {"micro_batch": row.batch, "seq_len": row.tokens, "grad_ckpt": row.checkpointed}
    rank, eight = targets_of(row)[0], "8bit" in row.optimizer
    return estimate_memory(profile, method="qlora", lora_rank=rank, opt_8bit=eight, **settings).total_gb * GIB


#: package on the index -> (module, its answer in bytes)
PEERS = {
    "accelerate": ("accelerate", accelerate),
    "canifinetune": ("canifinetune", canifinetune),
    "fitcheck-llm": ("fitcheck", fitcheck),
    "ftuneai": ("ftuneai", ftuneai),
    "fitscout": ("fitscout", fitscout),
}
#: the fewest figures that must be compared
LEAST = 6


def rows():
    """Return the published figures of one card that are no bounds."""
    return [row for row in ROWS if row.gpus == 1 and not row.bound]


def named(package):
    try:
        return f"{package} {version(package)}"
    except PackageNotFoundError:
        return package


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, help="also write the figures there")
    options = parser.parse_args()
    missing = [package for package, (module, _) in PEERS.items() if find_spec(module) is None]
    if missing:
        parser.error(f"not installed: {', '.join(missing)} (see the head of benchmarks/cost/peers.py)")
    away = {"kbitlint": {}, **{package: {} for package in PEERS}}
    with tempfile.TemporaryDirectory() as place:
        for row in rows():
            answers = {"kbitlint": told(row, place), **{package: answer(row) for package, (_, answer) in PEERS.items()}}
            what = f"{row.words}, {row.source}"
            for package, nbytes in answers.items():
                away[package][what] = nbytes / row.measured - 1
            said = "  ".join(
                f"{package} {nbytes / 1e9:.1f} ({away[package][what]:+.0%})" for package, nbytes in answers.items()
            )
            print(f"{row.words:<44}{row.measured / 1e9:6.1f} GB  {said}", flush=True)
    for package, found in away.items():
        median = statistics.median(map(abs, found.values()))
        print(f"{named(package):<24}median {median:6.1%} away, nearest in {nearest(away)[package]} of {len(found)}")
    return leave(goals(away), options.json, deviations=away)


def nearest(away):
    """Return in how many figures each estimator is nearest."""
    counts = dict.fromkeys(away, 0)
    for what in away["kbitlint"]:
        counts[min(away, key=lambda package: abs(away[package][what]))] += 1
    return counts


def goals(away):
    """Yield the goals: the number of figures, and in how many of them the table is nearest beside the best other."""
    counts = nearest(away)
    total = len(away["kbitlint"])
    others = {package: statistics.median(map(abs, found.values())) for package, found in away.items() if package != "kbitlint"}
    yield Goal("published peaks that every estimator is asked for", total, LEAST, "", at_least=True)
    best = max(count for package, count in counts.items() if package != "kbitlint")
    yield Goal("published peaks of which the table is nearest", counts["kbitlint"], best + 1, "", at_least=True, of=total)
    own = statistics.median(map(abs, away["kbitlint"].values()))
    yield Goal(
        f"median deviation beside that of the nearest other ({min(others, key=others.get)})", own, min(others.values()), "%"
    )


if __name__ == "__main__":
    sys.exit(main())
