"""Mutational fuzzing of every parser of untrusted files. A parser may raise its own error and no other.

    python -m benchmarks.robustness.fuzz [--executions N] [--minutes N] [--parser NAME ...] [--state FILE] [--json FILE]

Counts continue from the state file, so a run can be stopped and resumed. An input that raises another error, or takes
longer than two seconds, is written to the folder of findings. Past findings are cases of ``tests/files/test_hostile.py``.
"""

from __future__ import annotations

import argparse
import ast
import atexit
import dataclasses
import functools
import hashlib
import io
import json
import os
import random
import re
import shutil
import sys
import tempfile
import time
import warnings
from pathlib import Path

from benchmarks.goals import Goal, leave
from kbitlint import config, engine, suppress
from kbitlint.context import TrainingContext, launchers
from kbitlint.errors import KbitlintError
from kbitlint.files import baseline, checkpoint, json_text, manifest, safetensors
from kbitlint.files.packing import packing_of
from kbitlint.registry import all_rules
from kbitlint.source import notebooks, python
from kbitlint.source.comments import ignores
from kbitlint.source.configs import collect as configs
from kbitlint.source.configs import tree as config_tree
from kbitlint.upstream.versions import NEWEST
from kbitlint.violation import Surface

SCRIPTS = Path(__file__).parents[2] / "tests" / "data" / "scripts"
SLOW = 2.0
_NAME = re.compile(rb"[A-Za-z_]\w*")


def read_python(content):
    facts = python.collect("f.py", content.decode("utf-8", "replace").replace("\r", "\n"), NEWEST)
    ignores(facts.text, ast.parse(facts.text))


def read_notebook(content):
    notebook = notebooks.read(content.decode("utf-8", "replace"))
    python.parsed(notebook.python)
    notebook.written(())


def read_yaml(content):
    configs.collect("f.yaml", content.decode("utf-8", "replace"), ".yaml", NEWEST)


def read_json(content):
    text = content.decode("utf-8", "replace")
    json_text.parse(text).plain()
    configs.collect("f.json", text, ".json", NEWEST)


def read_header(content):
    packing_of(safetensors.parse(io.BytesIO(content), len(content)))


@functools.cache
def scratch():
    """Return a folder, in memory if possible, for parsers that read files."""
    memory = Path("/dev/shm")  # noqa: S108  # the folder in it is made anew
    place = tempfile.mkdtemp(prefix="kbitlint-fuzz-", dir=memory if memory.is_dir() and os.access(memory, os.W_OK) else None)
    atexit.register(shutil.rmtree, place, ignore_errors=True)
    return Path(place)


def through(function, name):
    """Return a parser of bytes that writes them to a file and calls a parser of files."""

    def parser(content):
        path = scratch() / name
        path.write_bytes(content)
        return function(path)

    return parser


def read_config(path):
    settings = config.load(path)
    for field in dataclasses.fields(settings):
        if field.name != "file":
            config.as_toml(settings, field.name)


def read_baseline(path):
    suppress.written(baseline.read(path), (), path.parent, prune=True)


def read_folder(path):
    facts = checkpoint.read_checkpoint(path.parent, path)
    crashes = () if facts is None else engine.run(all_rules(), {Surface.FILES: facts}, TrainingContext()).crashes
    if crashes:
        raise RuntimeError(crashes[0])


def header(entries, data):
    content = json.dumps(entries).encode()
    return len(content).to_bytes(8, "little") + content + b"\0" * data


RECIPE = b"""import torch
bnb = BitsAndBytesConfig(load_in_4bit=True)
m = AutoModelForCausalLM.from_pretrained('a', quantization_config=bnb)
m = prepare_model_for_kbit_training(m)
m = get_peft_model(m, LoraConfig(r=8))
Trainer(m, TrainingArguments('o')).train()
"""
FUNCTIONS = b"""def f(a, *b, c=1, **d):
    if a and not c:
        return a.gradient_checkpointing_enable(**d)
    for p in a.parameters():
        p.requires_grad = True
    return [x for x in b]
f(f, f, c={'use_reentrant': 2}, **{'e': 1})
"""
CLASSES = b"""class A(Trainer):
    x: int = 1
    def __init__(self, m):
        self.m = m
        m(1).loss.backward()  # kbitlint: ignore[KB4]
A(A(1)).train()
with a as b: b, *c = d
try:
    kw |= dict(a=1)
except E: raise
"""
#: the short seeds are repeated, so that the long and slow scripts are drawn less often
PYTHON = [*[RECIPE, FUNCTIONS, CLASSES] * 60, *(path.read_bytes() for path in sorted(SCRIPTS.glob("*.py")))]
AXOLOTL = b"""base_model: a
load_in_4bit: true
adapter: qlora
micro_batch_size: 1
gradient_checkpointing_kwargs: {use_reentrant: true}
"""
ALIASES = b"""a: &x [1, 2]
b: *x
model_name_or_path: >-
  text
load_in_4bit: !!bool yes
use_peft: on # kbitlint: ignore[KB401]
<<: *x
"""
YAML = [AXOLOTL, ALIASES]
JSONS = [
    b'{"model_name_or_path": "a", "load_in_4bit": true, "use_peft": true, "n": [1, -2.5e3, null, {"a": "\\u00e9"}]}',
    b'{"zero_optimization": {"stage": 3}, "train_micro_batch_size_per_gpu": "auto"}',
]
CODE = {"cell_type": "code", "source": ["%pip install x\n", "get_peft_model(m)\n", "!ls\n", "x = %y"]}
TEXT = {"cell_type": "markdown", "source": "text"}
NOTEBOOKS = [json.dumps({"cells": [CODE, TEXT, {**CODE, "source": "prepare_model?"}]}, indent=1).encode()]
FOUR_BITS = {
    "a.weight": {"dtype": "U8", "shape": [8, 1], "data_offsets": [0, 8]},
    "a.weight.absmax": {"dtype": "F32", "shape": [1], "data_offsets": [8, 12]},
    "__metadata__": {"format": "pt"},
}
EIGHT_BITS = {
    "q.weight": {"dtype": "I8", "shape": [2, 2], "data_offsets": [0, 4]},
    "q.SCB": {"dtype": "F32", "shape": [2], "data_offsets": [4, 12]},
}
HEADERS = [header(FOUR_BITS, 12), header(EIGHT_BITS, 12)]

DEEPSPEED = [JSONS[1], b'{"bf16": {"enabled": "auto"}, "optimizer": {"type": "AdamW"}, "zero_optimization": {"stage": 2}}']
ACCELERATE = [
    b"""compute_environment: LOCAL_MACHINE
distributed_type: FSDP
mixed_precision: bf16
num_processes: 8
fsdp_config: {fsdp_version: 2, fsdp_activation_checkpointing: true}
""",
    b"distributed_type: DEEPSPEED\ndeepspeed_config: {zero_stage: 3}\nmixed_precision: 'no'\nnum_processes: 2\n",
]
PYPROJECT = [
    b"""[tool.kbitlint]
targets = ["models/*", "train.py:build"]
meta = true
fail-on = "error"
quantize = "nf4"
ignore-in = [{ rule = "KB101", path = "vision.**", reason = "why" }]
severity = { KB404 = "warning" }
options = { KB104 = { warn-from = 0.1 } }
""",
]
BASELINE = [b'{"version": 1, "targets": {"m": {"KB101": {"model.layers.*.norm": 32, "(model)": 1}}, "n": {}}}']
MANIFEST = [
    b'{"format": 1, "quantize": "nf4", "edits": [{"kind": "cast", "path": "a.b", "arguments": {"dtype": "float32"}}]}',
]
CONFIG_JSON = [
    b"""{"model_type": "llama", "dtype": "bfloat16", "quantization_config": {"quant_method": "bitsandbytes",
"load_in_4bit": true, "bnb_4bit_compute_dtype": "float32", "llm_int8_skip_modules": ["lm_head", null]}}""",
    b'{"model_type": "gpt2", "torch_dtype": "float16", "quantization_config": {"quant_method": "gptq", "bits": 4}}',
]
_JSON_WORDS = b'{ } [ ] " : , \\u 1e9 null true -1 ""'
#: name -> (function, seeds, errors that it may raise, words to insert)
PARSERS = {
    "header": (read_header, HEADERS, safetensors.HeaderError, b'"dtype" F32 [ ] 999999999999 -1 {} \xff'),
    "json": (read_json, JSONS, (json_text.JSONTextError, config_tree.ConfigurationError), b'{ } [ " : , \\u 1e9'),
    "yaml": (read_yaml, YAML, config_tree.ConfigurationError, b":\\_ -\\_ &a *a !! |\\n { } ?\\_ \t"),
    "notebook": (read_notebook, NOTEBOOKS, (notebooks.NotebookError, python.SourceError), b'%% ! \\n " [ source'),
    "deepspeed": (through(launchers.training_file, "ds.json"), DEEPSPEED, KbitlintError, _JSON_WORDS + b' "auto" "stage"'),
    "accelerate": (through(launchers.training_file, "a.yaml"), ACCELERATE, KbitlintError, b":\\_ -\\_ &a *a !! |\\n { } no 1"),
    "pyproject": (
        through(read_config, "pyproject.toml"),
        PYPROJECT,
        KbitlintError,
        b'[ ] [[ {} = \\n 1e9 tool.kbitlint \'\' """',
    ),
    "baseline": (through(read_baseline, "b.json"), BASELINE, KbitlintError, _JSON_WORDS),
    "manifest": (through(manifest.read_file, "kbitlint.json"), MANIFEST, KbitlintError, _JSON_WORDS),
    "config.json": (through(read_folder, "config.json"), CONFIG_JSON, KbitlintError, _JSON_WORDS + b' "fp4" "int8"'),
    "python": (
        read_python,
        PYTHON,
        (python.SourceError, KbitlintError),
        b"( ) ** * lambda: if else \\n def = . model yield await [0] := \xc3\xa9 \0 \x0c f'{a!r}' , None True self",
    ),
}


def mutated(seed, words, dice):
    """Return a seed after one to five changes of bytes, words, names and stretches."""
    content = bytearray(seed)
    names = list(_NAME.finditer(seed))
    for _ in range(dice.randint(1, 5)):
        place = dice.randrange(len(content) + 1)
        kind = dice.randrange(9)
        if kind == 0 and place < len(content):
            content[place] = dice.randrange(256)
        elif kind == 1:
            del content[place : place + dice.randint(1, 12)]
        elif kind == 2:
            content[place:place] = dice.choice(words)
        elif kind == 3:
            other = dice.randrange(len(content) + 1)
            content[place:place] = content[other : other + dice.randint(1, 40)]
        elif kind == 4 and place < len(content):
            content[place] ^= 1 << dice.randrange(8)
        elif kind == 5:
            content[place:place] = dice.choice(words) * dice.choice((2, 8, 100))
        elif kind == 6:
            del content[place:]
        elif names:
            old, new = dice.choice(names).span(), dice.choice(names).group()
            content[old[0] : old[1]] = new
    return bytes(content)


def fuzz(name, executions, state, findings):
    """Run one parser on mutations until its count is reached, and yield after every 20,000."""
    function, seeds, allowed, put_in = PARSERS[name]
    words = [word.replace(b"\\n", b"\n").replace(b"\\_", b" ") for word in put_in.split(b" ")]
    record = state.setdefault(name, {"executions": 0, "findings": 0, "slowest": 0.0})
    start = time.monotonic()
    while record["executions"] < executions:
        dice = random.Random(f"{name} {record['executions']}")  # noqa: S311  # not for secrets: the same mutations in each run
        content = mutated(dice.choice(seeds), words, dice)
        began = time.process_time()  # CPU time, because other processes may take the cores
        try:
            function(content)
            problem = None
        except allowed:
            problem = None
        except Exception as error:  # noqa: BLE001  # any other exception is a finding
            problem = f"{type(error).__name__}: {error}"[:200]
        taken = time.process_time() - began
        record["slowest"] = max(record["slowest"], round(taken, 3))
        if problem is not None or taken > SLOW:
            record["findings"] += 1
            findings.mkdir(parents=True, exist_ok=True)
            file = findings / f"{name}-{hashlib.sha256(content).hexdigest()[:12]}"
            file.write_bytes(content)
            print(f"{name}: {problem or f'took {taken:.1f} s'}: {file}", flush=True)
        record["executions"] += 1
        if record["executions"] % 20_000 == 0:
            yield
    print(f"{name:<12}{record['executions']:>9} executions, {record['findings']} findings, slowest {record['slowest']:.3f} s, "
          f"{time.monotonic() - start:.0f} s", flush=True)  # fmt: skip


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--executions", type=int, default=1_000_000, help="for each parser, all runs together")
    parser.add_argument("--parser", action="append", choices=PARSERS, help="only this one")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="stop after so long")
    parser.add_argument("--json", type=Path, help="also write the goals there")
    kept = Path(__file__).parents[1] / "results" / "fuzz-counts.json"
    parser.add_argument("--state", type=Path, default=kept, help="where counts are kept")
    parser.add_argument("--findings", type=Path, default=Path("fuzz-findings"), help="where findings are written")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    state = json.loads(options.state.read_text()) if options.state.exists() else {}
    options.state.parent.mkdir(parents=True, exist_ok=True)
    end = time.monotonic() + 60 * options.minutes
    for name in options.parser or PARSERS:
        for _ in fuzz(name, options.executions, state, options.findings):
            options.state.write_text(json.dumps(state, indent=1) + "\n")
            if time.monotonic() > end:
                break
        options.state.write_text(json.dumps(state, indent=1) + "\n")
    return leave(goals(state, options.executions), options.json)


def goals(state, executions):
    """Yield the goals: mutations of each parser, all runs together, and no finding."""
    for name, record in state.items():
        yield Goal(f"mutated files read by the parser of {name}", record["executions"], executions, "", at_least=True)
    found = sum(record["findings"] for record in state.values())
    yield Goal(
        "errors of another kind than its own, or slow reads", found, 0, "", of=sum(r["executions"] for r in state.values())
    )


if __name__ == "__main__":
    sys.exit(main())
