"""Times of kbitlint as ratios to comparable work of the same run.

    python -m benchmarks.cost.speed [--runs N] [--light] [--json FILE]

Compared commands run in turns, each in a new process, and the fastest run of each counts. The exit code is 1 if a goal is
missed.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from benchmarks.goals import Goal, leave

#: the geometry of Llama-3-70B
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
import sys
import time
import torch
from transformers import LlamaConfig, LlamaForCausalLM
import kbitlint
from kbitlint.extras import load_bitsandbytes
from kbitlint.model.build.meta import instantiate
from kbitlint.model.build.checkpoint_config import quantization_config

def least(function, runs=5):
    best = float("inf")
    for _ in range(runs):
        start = time.process_time()
        function()
        best = min(best, time.process_time() - start)
    return best

load_bitsandbytes("the benchmark")
config = LlamaConfig(hidden_size=64, intermediate_size=128, num_hidden_layers=int(sys.argv[1]), num_attention_heads=4,
    num_key_value_heads=2, vocab_size=256)
model = instantiate(LlamaForCausalLM, config, quantization_config("nf4", torch.bfloat16), torch.bfloat16)
bare = least(lambda: (sum(1 for _ in model.named_modules()), sum(1 for _ in model.named_parameters())))
ours = least(lambda: kbitlint.check(model, trace=False))
print(sum(1 for _ in model.modules()), bare, ours)
"""


TRACE = """
import json
import resource
import sys
import time
import torch
from transformers import LlamaConfig, LlamaForCausalLM
from kbitlint.extras import load_bitsandbytes
from kbitlint.model.build.meta import instantiate
from kbitlint.model.build.checkpoint_config import quantization_config
from kbitlint.model.trace.trace import trace
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


@dataclass(frozen=True)
class Times:
    """The times and the memory of one command over all its runs."""

    seconds: list[float]
    memory: float
    """The largest peak of resident memory of a run, in MB."""

    @property
    def least(self) -> float:
        """Return the seconds of the fastest run."""
        return min(self.seconds)

    def over(self, other: Times) -> float:
        """Return the ratio of the fastest run to the fastest run of another command."""
        return self.least / other.least

    @property
    def noise(self) -> float:
        """Return how far the median run is above the fastest, as a share of the fastest."""
        return statistics.median(self.seconds) / self.least - 1


def once(command):
    """Run a command in one process, and return (seconds, peak MB).

    Raises:
        SystemExit: If the exit code is above 1.
    """
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


def in_turns(commands, runs, *, warm=True):
    """Run the commands in turns, ``runs`` times, and return name -> Times. ``warm`` adds a first run of each."""
    for command in commands.values() if warm else ():
        once(command)  # writes bytecode, and fills the cache of files
    rounds = [{name: once(command) for name, command in commands.items()} for _ in range(runs)]
    return {name: Times([one[name][0] for one in rounds], max(one[name][1] for one in rounds)) for name in commands}


def output_of(command):
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def python(*arguments):
    return [sys.executable, *map(str, arguments)]


def kbitlint(*arguments):
    return [str(Path(sys.executable).with_name("kbitlint")), *map(str, arguments)]


def startup(runs):
    """Time commands without work, against Python itself and the import of click."""
    commands = {
        "pass": python("-c", "pass"),
        "click": python("-c", "import click"),
        "--version": kbitlint("--version"),
        "rules": kbitlint("rules"),
    }
    times = in_turns(commands, 4 * runs)
    click = times["click"]
    for name, goal in (("--version", 40), ("rules", 80)):
        yield Goal(f"kbitlint {name}, cold: beyond import click", 1000 * (times[name].least - click.least), goal, "ms")
    yield Goal("kbitlint --version, cold / import click", times["--version"].over(click), 2, noise=times["--version"].noise)
    yield Goal("kbitlint rules, cold / python -c pass", times["rules"].over(times["pass"]), 8, noise=times["rules"].noise)


def folder_audit(runs):
    """Time the audit of a folder of 80 layers, against importing torch and building its model on meta by hand."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "config.json").write_text(json.dumps(CONFIG))
        audit = kbitlint("check", folder, "--quantize", "nf4")
        commands = {"hand": python("-c", BY_HAND, folder), "untraced": [*audit, "--no-trace"], "traced": audit}
        times = in_turns(commands, runs)
    for name, goal in (("untraced", 1.3), ("traced", 2)):
        what = f"folder of a 70B Llama, {name} / built on meta by hand"
        yield Goal(what, times[name].over(times["hand"]), goal, noise=times[name].noise)
    yield Goal("peak memory of that audit", times["traced"].memory, 700, "MB")


def walk(layers=(80, 800, 8000)):
    """Time the audit of a live nf4 model, all rules, against a bare pass over its modules and parameters.

    The growth of that time with the number of modules is a goal too.
    """
    sizes = []
    for number in layers:
        modules, bare, ours = map(float, output_of(python("-c", WALK, number)).split())
        sizes.append((modules, ours))
        yield Goal(f"audit of a live model of {modules:,.0f} modules / a bare walk", ours / bare, 10)
    for (fewer, short), (more, long) in itertools.pairwise(sizes):
        what = f"growth of that audit to {more:,.0f} modules, time / modules"
        yield Goal(what, (long / short) / (more / fewer), 1.5)


def step():
    """Time the traced step of a 70B Llama with LoRA, against building it, and its growth with depth."""
    geometry = {key: value for key, value in CONFIG.items() if isinstance(value, int)}
    first, last, peak = (line.split() for line in output_of(python("-c", TRACE, json.dumps(geometry))).splitlines())
    (few, _, short), (many, building, long) = (tuple(map(float, line)) for line in (first, last))
    yield Goal("traced step of a 70B Llama / (2 x building + 3 s)", long / (2 * building + 3), 1)
    yield Goal("growth of the step from 20 to 80 layers, time / layers", (long / short) / (many / few), 1.2)
    yield Goal("peak memory of building and tracing it", float(peak[0]), 1500, "MB")


FIT = """
import json, pathlib, resource, sys, tempfile, time
import kbitlint

place = pathlib.Path(tempfile.mkdtemp())
(place / "config.json").write_text(sys.argv[1])
how = {"quantize": "nf4-bf16", "gpu": "24GB", "gpus": 2, "strategy": "fsdp2", "offload": True}
found = kbitlint.fit(place, **how)
assert found.answer is not None and found.answer.offload
print(found.steps, time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000)
"""


def fit():
    """Time the answer whether 70B fits two cards of 24 GB under FSDP2 with offload, with the changes that make it fit."""
    steps, seconds, peak = map(float, output_of(python("-c", FIT, json.dumps(CONFIG))).split())
    yield Goal("fit of a 70B Llama on 2 x 24 GB, FSDP2 with offload: CPU time", seconds, 30, "s")
    yield Goal("distinct steps that it traces", steps, 24)
    yield Goal("peak memory of it", peak, 4000, "MB")


SCRIPT = Path(__file__).parents[2] / "tests" / "data" / "scripts" / "qlora_trainer_classic.py"
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
    """Time the audit of a training script, cold, against importing click, and against other linters if installed."""
    others = {name: shutil.which(name) for name in ("torchfix", "peft-doctor")}
    commands = {"click": python("-c", "import click"), "ours": kbitlint("check", SCRIPT)}
    commands |= {name: [path, *["check"] * (name == "peft-doctor"), str(SCRIPT)] for name, path in others.items() if path}
    times = in_turns(commands, 2 * runs)
    ours = times["ours"]
    what = "a training script, cold / (3 x import click + 60 ms)"
    yield Goal(what, ours.least / (3 * times["click"].least + 0.06), 1, noise=ours.noise)
    for name in sorted(set(times) - {"click", "ours"}):
        yield Goal(f"a training script, cold / {name}", ours.over(times[name]), 1, noise=ours.noise)


def tree_audit(files=2000):
    """Time the audit of a repository of unrelated files and one training script."""
    with tempfile.TemporaryDirectory() as folder:
        for number in range(files):
            path = Path(folder) / f"package{number % 40}" / f"module{number}.py"
            path.parent.mkdir(exist_ok=True)
            path.write_text(UNRELATED.format(number=number))
        (Path(folder) / "train.py").write_text(SCRIPT.read_text())
        times = in_turns({"tree": kbitlint("check", folder), "one": kbitlint("check", SCRIPT)}, 3)
    yield Goal(f"{files:,} unrelated files", times["tree"].least, 1, "s")
    yield Goal(
        f"{files:,} unrelated files / one training script", times["tree"].over(times["one"]), 4, noise=times["tree"].noise
    )


def sharded(folder, shards, tensors):
    """Write a 4-bit checkpoint with real headers, whose weights are holes in sparse files."""
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


def header_audit(runs, *, light):
    """Time the audit of 200 headers with 100,000 tensors, and that of 30 headers against building the model on meta."""
    files = ("--select", "KB820,KB821,KB823,KB824")  # KB822 needs the model too
    with tempfile.TemporaryDirectory() as folder:
        sharded(folder, 200, 100_000)
        times = in_turns({"ours": kbitlint("check", folder, *files)}, runs)["ours"]
    yield Goal("200 headers, 100,000 tensors", times.least, 1, "s")
    yield Goal("peak memory of that audit", times.memory, 150, "MB")
    if light:
        return
    with tempfile.TemporaryDirectory() as folder:
        sharded(folder, 30, 4_000)
        times = in_turns({"ours": kbitlint("check", folder, *files), "hand": python("-c", BY_HAND, folder)}, runs)
    what = "headers of a 70B checkpoint / built on meta by hand"
    yield Goal(what, times["ours"].over(times["hand"]), 1 / 20, noise=times["ours"].noise)


def goals(runs, *, light):
    """Yield all goals, those that need no torch first."""
    yield from startup(runs)
    yield from script_audit(runs)
    yield from tree_audit()
    yield from header_audit(runs, light=light)
    if not light:
        yield from folder_audit(runs)
        yield from walk()
        yield from step()
        yield from fit()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=5, help="processes a side")
    parser.add_argument("--light", action="store_true", help="only what needs no torch")
    parser.add_argument("--json", type=Path, help="also write the figures there")
    options = parser.parse_args()
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # an installed package has bytecode, so the runs must write it
    return leave(goals(options.runs, light=options.light), options.json)


if __name__ == "__main__":
    sys.exit(main())
