"""Learning curves of 300 steps after each preparation, and float16 training with a large residual stream.

    python -m benchmarks.cost.learning [--out FILE] [--part bfloat16|float16] [--only FAMILY] [--redo] [--jobs N]

The task is to continue counting. Each sequence starts at a random number and counts by one, two or three, so a model
must infer the increment from the tokens before. A frozen random base in nf4 learns the task through LoRA alone. In the
bfloat16 part, adapters are on every quantized layer. Each architecture is trained from several seeds (weights, adapters
and data). The spread between seeds is the noise against which preparations are compared.

The float16 part uses autocast and a GradScaler, as ``fp16=True`` of a Trainer does. All weights that write to the
residual stream, embeddings included, are multiplied until the largest value of the stream is the one in the table.
Norms undo that factor, so in exact arithmetic the model computes the same function. Adapters are only on layers that
read the stream, so they train the same function too.

The file ``--out`` gets one JSON line per run, and runs that it already has are not repeated. The exit code is 1 if the
mean loss after kbitlint is above the worst seed of PEFT's prepare.
"""

from __future__ import annotations

import argparse
import itertools
import math
import statistics
import sys
import tempfile
import time
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import transformers
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn

from benchmarks.goals import Goal, leave
from benchmarks.truth import real_steps
from benchmarks.truth.preparations import PREPARATIONS, bitsandbytes, experts_in
from kbitlint.model.layers import norms
from tests.support import tiny

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

VOCAB, BATCH, LENGTH, STEPS, RATE = 64, 16, 16, 300, 5e-3
#: the number of last steps whose mean is the final loss
LAST = 20
COMPARED = ("none", "peft", "kbitlint", "kbitlint-unsafe")
BFLOAT16 = (
    "llama",
    "gemma3 (1 + weight)",
    "qwen3_moe (MoE, q and k norms)",
    "phi3 (fused QKV)",
    "gpt_neox (fused QKV, LayerNorm)",
)


@dataclass(frozen=True)
class Stream:
    """The modules of an architecture that write to the residual stream, and the source of its class and config."""

    what: str
    writers: tuple[str, ...]
    family: str = ""
    """A family of ``tests.support.tiny``; empty for the class of ``imagegpt``."""


def imagegpt() -> tuple[str, Callable[[], Any]]:
    """Return a language model over colours, whose norms square their input in the input's own dtype."""
    values = {"n_embd": 64, "n_layer": 2, "n_head": 4, "n_inner": 128, "n_positions": 128}
    return "ImageGPTForCausalImageModeling", lambda: transformers.ImageGPTConfig(**values)


FLOAT16 = {
    "llama": Stream("norms in float32 by their own code", ("embed_tokens", "o_proj", "down_proj"), "llama"),
    "gpt_neox": Stream(
        "torch's LayerNorm", ("embed_in", "attention.dense", "dense_4h_to_h"), "gpt_neox (fused QKV, LayerNorm)"
    ),
    "imagegpt": Stream("norms that square in the dtype that comes in", ("wte", "wpe", "c_proj")),
}
#: the largest value of the residual stream before training; None leaves the model as it was made
LARGEST = (None, 1e3, 1e4, 3e4, 8e4)


@dataclass(frozen=True)
class Run:
    """One training run: the part, the architecture and the seed."""

    part: str
    family: str
    seed: int
    largest: float | None = None
    steps: int = STEPS

    @property
    def task(self) -> str:
        """Return the first part of the key under which ``real_steps.write`` stores the result."""
        return f"{self.part} {f'{self.largest:g}' if self.largest else 'as made'} seed {self.seed}"


@dataclass
class Curve:
    """The losses of a run, one for each step."""

    losses: list[float] = field(default_factory=list)
    skipped: int = 0
    """The number of steps that the GradScaler skipped because a gradient was not finite."""

    def as_data(self) -> dict[str, Any]:
        diverged = next((step for step, loss in enumerate(self.losses) if not math.isfinite(loss)), None)
        return {
            "first": _rounded(self.losses[:1]),
            "loss": _rounded(self.losses[-LAST:]),
            "diverged": diverged,
            "skipped": self.skipped,
        }


def _rounded(losses: list[float]) -> float | None:
    mean = statistics.fmean(losses)
    return round(mean, 4) if math.isfinite(mean) else None


def batches(seed: int) -> Iterator[Tensor]:
    """Yield batches of sequences that count by one, two or three, without end. Shape: (BATCH, LENGTH)."""
    generator = torch.Generator().manual_seed(seed)
    while True:
        start = torch.randint(0, VOCAB, (BATCH, 1), generator=generator)
        step = torch.randint(1, 4, (BATCH, 1), generator=generator)
        yield (start + step * torch.arange(LENGTH)) % VOCAB


def made(run: Run, folder: str) -> type[transformers.PreTrainedModel]:
    """Save a random checkpoint of the architecture, and return its class.

    The initial weights are large enough to learn the task.
    """
    stream = FLOAT16[run.family] if run.part == "float16" else None
    family = run.family if stream is None else stream.family
    name, config_of = tiny.FAMILIES[family] if family else imagegpt()
    config = config_of()
    config.vocab_size = VOCAB + (name == "ImageGPTForCausalImageModeling")  # its head has no class for the start token
    config.initializer_range = 0.1
    config.pad_token_id = None  # the embedding of a padding token is zero, and no factor enlarges it
    config.tie_word_embeddings = False  # the head must not grow with the embeddings
    transformers.set_seed(run.seed)
    cls = getattr(transformers, name)
    model = cls._from_config(config, dtype=torch.float32)
    if stream is not None and run.largest:
        _enlarge(model, stream, run.largest / largest(model, next(batches(run.seed))))
    model.save_pretrained(folder)
    return cls


def largest(model: nn.Module, tokens: Tensor) -> float:
    """Return the largest absolute input of any norm of a model."""
    found: list[float] = []
    handles = [
        module.register_forward_pre_hook(lambda _, inputs: found.append(float(inputs[0].detach().abs().max())))
        for module in model.modules()
        if norms.is_norm(module)
    ]
    with torch.no_grad():
        model.eval()(input_ids=tokens)
    for handle in handles:
        handle.remove()
    return max(found)


def _enlarge(model: nn.Module, stream: Stream, factor: float) -> None:
    for name, module in model.named_modules():
        if name.endswith(stream.writers):
            for parameter in module.parameters():
                parameter.data.mul_(factor)


def adapted(model: Any, run: Run) -> Any:
    """Attach LoRA to the quantized layers.

    In the float16 part, layers that write to the stream get none.
    """
    writers = FLOAT16[run.family].writers if run.part == "float16" else ()
    layers = (name for name, module in model.named_modules() if isinstance(module, bitsandbytes.nn.Linear4bit))
    targets = [name for name in layers if not (writers and name.endswith(writers))]
    transformers.set_seed(run.seed)
    return get_peft_model(model, LoraConfig(r=8, lora_alpha=16, target_modules=targets))


def train(model: Any, run: Run, dtype: torch.dtype) -> Curve:
    """Train the adapters of a model under autocast, and return the losses."""
    curve, data = Curve(), batches(run.seed)
    optimizer = torch.optim.AdamW([parameter for parameter in model.parameters() if parameter.requires_grad], lr=RATE)
    scaler = torch.amp.GradScaler("cpu", enabled=dtype is torch.float16)
    model.train()
    for _ in range(run.steps):
        tokens = next(data)
        with torch.autocast("cpu", dtype):
            loss = model(input_ids=tokens, labels=tokens, use_cache=False).loss
        curve.losses.append(float(loss.detach()))
        scaler.scale(loss).backward()
        before = scaler.get_scale()
        scaler.step(optimizer)
        scaler.update()
        curve.skipped += scaler.get_scale() < before
        optimizer.zero_grad(set_to_none=True)
    return curve


def learn(run: Run, wanted: list[str], out: Path) -> None:
    """Train one architecture from one seed after each wanted preparation, and write a line for each."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    dtype = torch.float16 if run.part == "float16" else torch.bfloat16
    with tempfile.TemporaryDirectory() as folder:
        cls = made(run, folder)
        for name in wanted:
            start = time.perf_counter()
            model = cls.from_pretrained(
                folder, dtype=dtype, device_map={"": "cpu"}, quantization_config=tiny.quantization(compute=dtype)
            )
            if not PREPARATIONS[name].applies(checkpoints=True, experts=experts_in(model)):
                continue
            PREPARATIONS[name].prepare(model)
            curve = train(adapted(model, run), run, dtype)
            real_steps.write(out, (run.task, run.family, name), curve.as_data(), start)


def runs_of(part: str | None, only: list[str], seeds: int) -> list[Run]:
    """Return the chosen runs, the bfloat16 part first."""
    whole = [Run("bfloat16", family, seed) for family, seed in itertools.product(BFLOAT16, range(seeds))]
    halves = [Run("float16", family, 0, value) for family, value in itertools.product(FLOAT16, LARGEST)]
    chosen = [run for run in (*whole, *halves) if part in (None, run.part)]
    return [run for run in chosen if not only or any(run.family.startswith(name) for name in only)]


def _compared(run: Run) -> list[str]:
    experts = "MoE" in run.family
    return [name for name in COMPARED if PREPARATIONS[name].applies(checkpoints=True, experts=experts)]


Lines = dict[real_steps.Key, dict[str, Any]]


def bfloat16_table(lines: Lines, runs: list[Run]) -> Iterator[tuple[str, list[Goal]]]:
    """Yield (row, kbitlint's goals) of each architecture: the mean, least and largest final loss of the seeds."""
    yield f"{'bfloat16, final loss':<32}" + "".join(f"{name:>24}" for name in COMPARED), []
    for family in dict.fromkeys(run.family for run in runs if run.part == "bfloat16"):
        found: dict[str, list[float]] = {}
        for run in (run for run in runs if (run.part, run.family) == ("bfloat16", family)):
            for name in _compared(run):
                line = lines.get((run.task, family, name))
                if line is not None:
                    found.setdefault(name, []).append(math.inf if line["loss"] is None else line["loss"])
        cells = (f"{statistics.fmean(v):.3f} ({min(v):.3f}-{max(v):.3f})" if (v := found.get(n)) else "" for n in COMPARED)
        goals = [
            Goal(f"{family}: final loss after {name} / that of PEFT's worst seed", statistics.fmean(found[name]) / worst, 1)
            for name in COMPARED[2:]
            if name in found and (worst := max(found.get("peft", ()), default=0))
        ]
        yield f"{family:<32}" + "".join(f"{cell:>24}" for cell in cells), goals


def float16_table(lines: Lines, runs: list[Run]) -> Iterator[str]:
    """Yield the rows of the float16 part."""
    columns = COMPARED[:3]
    yield f"{'float16, largest of the stream':<32}" + "".join(f"{name:>28}" for name in columns)
    for run in (run for run in runs if run.part == "float16"):
        cells = (_told(lines.get((run.task, run.family, name))) for name in columns)
        where = f"{run.family}, {f'{run.largest:,.0f}' if run.largest else 'as made'}"
        yield f"{where:<32}" + "".join(f"{cell:>28}" for cell in cells)


def _told(line: dict[str, Any] | None) -> str:
    if line is None:
        return "not run"
    skipped = f", {line['skipped']} skipped" if line["skipped"] else ""
    if line["loss"] is None:
        return f"nan from step {line['diverged']}"
    return f"{line['loss']:.3f}{skipped}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[1] / "learning.jsonl", help="the results file")
    parser.add_argument("--json", type=Path, help="also write the goals there")
    parser.add_argument("--part", choices=("bfloat16", "float16"), help="one part only")
    parser.add_argument("--only", action="append", default=[], metavar="FAMILY", help="this architecture only; repeatable")
    parser.add_argument("--seeds", type=int, default=3, help="seeds of the bfloat16 part")
    parser.add_argument("--redo", action="store_true", help="run again what the results file has already")
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time")
    parser.add_argument("--timeout", type=float, default=900, help="seconds for one run")
    parser.add_argument("--memory", type=int, default=12, help="gigabytes of address space for one run")
    options = parser.parse_args()
    runs = runs_of(options.part, options.only, options.seeds)
    known = {} if options.redo else real_steps.results(options.out)
    named = {(run.task, run.family): run for run in runs}
    left = {key: [name for name in _compared(run) if (*key, name) not in known] for key, run in named.items()}

    def work(task: str, family: str, wanted: list[str], out: Path) -> None:
        learn(named[task, family], wanted, out)

    real_steps.run_jobs([(*key, wanted) for key, wanted in left.items() if wanted], work, options)
    lines, found = real_steps.results(options.out), []
    for row, goals in bfloat16_table(lines, runs):
        print(row)
        found += goals
    for row in float16_table(lines, runs):
        print(row)
    return leave(found, options.json)


if __name__ == "__main__":
    sys.exit(main())
