"""Times what the README promises, as ratios within one run: kbitlint and the work it stands beside, in turns.

    python benchmarks/speed.py [--runs N] [--json FILE]

Leaves with 1 where a goal is missed.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path

#: Llama-3-70B's geometry
CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "dtype": "bfloat16",
    "hidden_size": 8192,
    "intermediate_size": 28672,
    "num_hidden_layers": 80,
    "num_attention_heads": 64,
    "num_key_value_heads": 8,
    "vocab_size": 128256,
    "tie_word_embeddings": False,
}
BY_HAND = """
import sys
import torch
from transformers import AutoConfig, LlamaForCausalLM
config = AutoConfig.from_pretrained(sys.argv[1])
with torch.device("meta"):
    LlamaForCausalLM(config)
"""
WALK = """
import time
import torch
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM
from kbitlint.model.walk import collect
import sys

def least(function, runs=5):
    best = float("inf")
    for _ in range(runs):
        start = time.perf_counter()
        function()
        best = min(best, time.perf_counter() - start)
    return best

layers = int(sys.argv[1])
with torch.device("meta"):
    model = LlamaForCausalLM(LlamaConfig(hidden_size=64, intermediate_size=128, num_hidden_layers=layers,
        num_attention_heads=4, num_key_value_heads=2, vocab_size=256))
bare = least(lambda: (sum(1 for _ in model.named_modules()), sum(1 for _ in model.named_parameters())))
print(sum(1 for _ in model.modules()), bare, least(lambda: collect(model)))
"""


TRACE = """
import json
import resource
import sys
import time
import torch
from transformers import LlamaConfig, LlamaForCausalLM
from kbitlint.extras import load_bitsandbytes
from kbitlint.model.build import instantiate
from kbitlint.model.source import quantization_config
from kbitlint.model.trace import trace
from peft import LoraConfig, get_peft_model

load_bitsandbytes("the benchmark")
geometry = json.loads(sys.argv[1])

def built(layers):
    start = time.perf_counter()
    config = LlamaConfig(**geometry | {"num_hidden_layers": layers})
    model = instantiate(LlamaForCausalLM, config, quantization_config("nf4", torch.bfloat16), torch.bfloat16)
    model.activation_checkpointing_enable({"use_reentrant": False})
    with torch.device("meta"):
        model = get_peft_model(model, LoraConfig(r=16, target_modules="all-linear"))
    return model, time.perf_counter() - start

trace(built(2)[0])
for layers in (20, 80):
    model, building = built(layers)
    traced = min((trace(model) for _ in range(3)), key=lambda facts: facts.seconds)
    assert all(gradient.arrives for gradient in traced.gradients) and len(traced.gradients) == 14 * layers
    print(layers, building, traced.seconds)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000)
"""


def measured(command):
    """(seconds, peak MB) of one process."""
    start = time.perf_counter()
    with Path(os.devnull).open("w") as nowhere:
        process = os.posix_spawn(
            command[0],
            command,
            {**os.environ, "HF_HUB_OFFLINE": "1"},
            file_actions=[(os.POSIX_SPAWN_DUP2, nowhere.fileno(), 1), (os.POSIX_SPAWN_DUP2, nowhere.fileno(), 2)],
        )
        _, status, usage = os.wait4(process, 0)
    if os.waitstatus_to_exitcode(status) > 1:
        raise SystemExit(f"{' '.join(command)} left with {os.waitstatus_to_exitcode(status)}")
    return time.perf_counter() - start, usage.ru_maxrss / 1000


def output_of(command):
    import subprocess

    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def folder_audit(runs):
    """An 80-layer folder: audited, against importing torch and the class and building it on meta by hand."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "config.json").write_text(json.dumps(CONFIG))
        hand = [sys.executable, "-c", BY_HAND, folder]
        traced = [sys.executable, "-m", "kbitlint", "check", folder, "--quantize", "nf4"]
        rounds = [[measured(command) for command in (hand, [*traced, "--no-trace"], traced)] for _ in range(runs)]
    by_hand, without, whole = (min(seconds for seconds, _ in column) for column in zip(*rounds, strict=True))
    yield "folder of a 70B Llama, no trace / built by hand", without / by_hand, 1.3, "x"
    yield "folder of a 70B Llama, traced / built by hand", whole / by_hand, 2, "x"
    yield "peak memory of that audit", max(peak for _, _, (_, peak) in rounds), 700, "MB"


def walk():
    """The walk of a live model, against a bare pass over its modules and parameters, and how it grows."""
    sizes = []
    for layers in (80, 800):
        modules, bare, ours = map(float, output_of([sys.executable, "-c", WALK, str(layers)]).split())
        sizes.append((modules, ours))
        yield f"facts of {int(modules)} modules / bare walk", ours / bare, 10, "x"
    (fewer, short), (more, long) = sizes
    yield "growth of the walk, time / modules", (long / short) / (more / fewer), 1.5, "x"


def step():
    """The traced step of a 70B Llama with LoRA, against building it, and how it grows with depth."""
    geometry = {key: value for key, value in CONFIG.items() if isinstance(value, int)}
    first, last, peak = (line.split() for line in output_of([sys.executable, "-c", TRACE, json.dumps(geometry)]).splitlines())
    (few, _, short), (many, building, long) = (tuple(map(float, line)) for line in (first, last))
    yield "traced step of a 70B Llama / (2 x building + 3 s)", long / (2 * building + 3), 1, "x"
    yield "growth of the step, time / layers", (long / short) / (many / few), 1.2, "x"
    yield "peak memory of building and tracing it", float(peak[0]), 1500, "MB"


SCRIPT = Path(__file__).parents[1] / "tests" / "scripts" / "qlora_trainer_classic.py"
UNRELATED = (
    """
import json
from pathlib import Path

class Handler{number}:
    def __init__(self, root):
        self.root = Path(root)

    def read(self, name):
        with (self.root / name).open() as file:
            return json.load(file)

def handle(handler, names):
    return {{name: handler.read(name) for name in names if not name.startswith(".")}}
"""
    + "# one line of many\n" * 120
)


def script_audit(runs):
    """A training script, cold, against importing click alone; and against other linters of torch where they are installed."""
    import shutil

    ours = [sys.executable, "-m", "kbitlint", "check", str(SCRIPT)]
    others = {name: shutil.which(name) for name in ("torchfix", "peft-doctor")}
    commands = {"click": [sys.executable, "-c", "import click"], "ours": ours}
    commands |= {
        name: [path, *(["check"] if name == "peft-doctor" else []), str(SCRIPT)] for name, path in others.items() if path
    }
    for command in commands.values():
        measured(command)  # bytecode is written once
    times = {name: min(measured(command)[0] for _ in range(runs)) for name, command in commands.items()}
    yield "a training script, cold / (3 x import click + 60 ms)", times["ours"] / (3 * times["click"] + 0.06), 1, "x"
    for name in sorted(set(times) - {"click", "ours"}):
        yield f"a training script, cold / {name}", times["ours"] / times[name], 1, "x"


def tree_audit():
    """A repository of files about something else."""
    with tempfile.TemporaryDirectory() as folder:
        for number in range(2000):
            path = Path(folder) / f"package{number % 40}" / f"module{number}.py"
            path.parent.mkdir(exist_ok=True)
            path.write_text(UNRELATED.format(number=number))
        (Path(folder) / "train.py").write_text(SCRIPT.read_text())
        yield (
            "2,000 unrelated files",
            min(measured([sys.executable, "-m", "kbitlint", "check", folder])[0] for _ in range(3)),
            1,
            "s",
        )


def sharded(folder, shards, tensors):
    """A 4-bit checkpoint of headers: the weights are holes in the files."""
    folder = Path(folder)
    weights = {}
    for shard in range(shards):
        name, header, end = f"model-{shard:05}-of-{shards:05}.safetensors", {}, 0
        for number in range(tensors // shards // 4):
            module = f"model.layers.{shard}.mlp.experts.{number}.up_proj.weight"
            for key, dtype, shape, size in (
                (module, "U8", [4096, 1], 4096),
                (f"{module}.absmax", "F32", [128], 512),
                (f"{module}.quant_map", "F32", [16], 64),
                (f"{module}.quant_state.bitsandbytes__nf4", "U8", [80], 80),
            ):
                header[key] = {"dtype": dtype, "shape": shape, "data_offsets": [end, end + size]}
                weights[key] = name
                end += size
        content = json.dumps(header).encode()
        with (folder / name).open("wb") as file:
            file.write(len(content).to_bytes(8, "little") + content)
            file.truncate(8 + len(content) + end)
    quantization = {"quant_method": "bitsandbytes", "load_in_4bit": True}
    (folder / "config.json").write_text(json.dumps(CONFIG | {"quantization_config": quantization}))
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weights}))


def header_audit(runs):
    """A checkpoint of 200 shards and 100,000 tensors by its files alone, against building the model on meta."""
    with tempfile.TemporaryDirectory() as folder:
        sharded(folder, 200, 100_000)
        command = [sys.executable, "-m", "kbitlint", "check", folder, "--select", "KB820,KB821,KB822,KB823,KB824"]
        found = [measured(command) for _ in range(runs)]
        hand = min(measured([sys.executable, "-c", BY_HAND, folder])[0] for _ in range(2))
    seconds = min(time for time, _ in found)
    yield "200 headers, 100,000 tensors", seconds, 1, "s"
    yield "peak memory of that audit", max(memory for _, memory in found), 150, "MB"
    with tempfile.TemporaryDirectory() as folder:
        sharded(folder, 30, 4_000)
        command = [sys.executable, "-m", "kbitlint", "check", folder, "--select", "KB820,KB821,KB822,KB823,KB824"]
        yield "headers of a 70B / built on meta by hand", min(measured(command)[0] for _ in range(runs)) / hand, 1 / 20, "x"


def rows_of(options):
    """All figures, those that need no torch first."""
    yield from script_audit(options.runs)
    yield from tree_audit()
    yield from header_audit(options.runs)
    if not options.light:
        yield from folder_audit(options.runs)
        yield from walk()
        yield from step()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=5, help="processes a side")
    parser.add_argument("--light", action="store_true", help="only what needs no torch")
    parser.add_argument("--json", type=Path, help="also write the figures there")
    options = parser.parse_args()
    rows = []
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # an installed package has its bytecode
    for name, value, goal, unit in rows_of(options):
        rows.append({"what": name, "value": round(value, 3), "goal": goal, "unit": unit, "met": value <= goal})
        print(f"{name:<54}{value:>9.3f} {unit:<3} goal {goal:<6}{'met' if value <= goal else 'MISSED'}")
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1) + "\n")
    return 0 if all(row["met"] for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
