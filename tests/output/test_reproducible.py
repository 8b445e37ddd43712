"""The same input gives the same bytes: in every process, for every seed of Python's hashes, in every format."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import tiny
from script_cases import SCRIPT

from kbitlint.output import formats

CODE = """
import contextlib, io, json, os, sys, shutil, hashlib
from pathlib import Path
from kbitlint.cli import main

def run(*arguments):
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main(list(arguments), prog_name="kbitlint")
        except SystemExit as error:
            code = error.code
    return [code, out.getvalue(), err.getvalue()]

said = {}
for target in ("tree", "model", "f.py:build", "adapter"):
    packing = ["--quantize", "nf4"] if target in ("model", "adapter") else []  # the others say it themselves
    for name in FORMATS:
        said[f"{target} {name}"] = run("check", target, *packing, "--format", name, "--diff")
for name in ("text", "json", "html"):
    said[f"memory {name}"] = run("memory", "f.py:build", "--format", name)
said["rules"] = run("rules")
said["baseline"] = run("check", "tree", "f.py:build", "--baseline", "b.json", "--write-baseline")
said["fix tree"] = run("--fix", "tree", "--unsafe-fixes")
said["fix model"] = run("--fix", "model", "--quantize", "nf4", "--device", "cpu")
for path in sorted(Path(".").rglob("*")):
    if path.is_file() and "__pycache__" not in path.parts:
        said[f"file {path}"] = hashlib.sha256(path.read_bytes()).hexdigest()
print(json.dumps(said))
"""
FACTORY = """import torch, tiny
def build():
    torch.manual_seed(1)
    return tiny.with_lora(tiny.load("mixtral (MoE)"))
"""


def made(folder):
    import shutil

    import checkpoint_cases

    (folder / "tree").mkdir(parents=True)
    for number in range(66):  # enough for several processes
        (folder / "tree" / f"train_{number}.py").write_text(SCRIPT)
    shutil.copytree(tiny.checkpoint(), folder / "model")
    checkpoint_cases.adapter(
        folder / "adapter",
        checkpoint_cases.lora("model.layers.0.self_attn.q_proj"),
        tiny.checkpoint(),
        target_modules=["q_proj", "v_proj"],
        r=2,
    )
    (folder / "f.py").write_text(FACTORY)
    return folder


def started(folder, seed):
    return subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", f"FORMATS = {formats.NAMES}\n{CODE}"],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={
            **os.environ,
            "PYTHONHASHSEED": seed,
            "PYTHONPATH": str(Path(__file__).parents[1] / "support"),
            "HF_HUB_OFFLINE": "1",
            "COLUMNS": "80",
        },
    )


@pytest.mark.slow
def test_every_output_and_every_file_is_the_same_in_every_process(tmp_path):
    found = []
    for seed in ("0", "4242"):
        process = started(made(tmp_path / seed / "project"), seed)  # a page bears the name of its folder
        out, errors = process.communicate(timeout=300)
        assert process.returncode == 0, errors[-2000:]
        found.append(json.loads(out.strip().splitlines()[-1]))

    first, *others = found
    assert len(first) > 100
    assert [code for code, _, _ in (first["tree json"], first["model json"], first["f.py:build json"])] == [
        0,
        1,
        1,
    ]  # a note, and warnings
    for other in others:
        assert {key: (first[key], other.get(key)) for key in first if first[key] != other.get(key)} == {}
