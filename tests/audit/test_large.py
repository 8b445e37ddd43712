"""Auditing never holds a second copy of a tensor: a large real one stays the only one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

MEASURED = """
import resource, sys, json, gc
import tiny, torch
import kbitlint

GIGABYTE = 10**9


def growth(call):
    '''Bytes that the peak of resident memory grows by; the peak is set back first, so that what was before does not hide it.'''
    gc.collect()
    open("/proc/self/clear_refs", "w").write("5")
    def at(name):
        return next(int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith(name))
    before = at("VmRSS")
    call()
    return at("VmHWM") - before


def large(model, dtype=torch.float32):
    '''A gigabyte that is really there.'''
    parameter = torch.nn.Parameter(torch.ones(GIGABYTE // dtype.itemsize, dtype=dtype), requires_grad=False)
    model.register_parameter("large", parameter)
    buffer = torch.ones(GIGABYTE // 4 // 8, dtype=torch.int64)
    model.register_buffer("table", buffer)
    return model
"""


def measured(code, *arguments, cwd=None):
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", MEASURED + code, *map(str, arguments)],
        check=False,
        capture_output=True,
        text=True,
        cwd=cwd,
        timeout=300,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1] / "support"), "HF_HUB_OFFLINE": "1"},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.strip().splitlines()[-1])


LIVE = """
def warm():  # what the libraries load once is no copy of a tensor
    model = tiny.load()
    kbitlint.check(model, plan=True); kbitlint.memory(model, lora=None); kbitlint.fix(model, unsafe=True); kbitlint.undo(model)
warm()
model = large(tiny.load())
print(json.dumps({
    "check": growth(lambda: kbitlint.check(model, trace=False)),
    "trace": growth(lambda: kbitlint.check(model)),
    "plan": growth(lambda: kbitlint.check(model, plan=True, outline=True)),
    "memory": growth(lambda: kbitlint.memory(model, lora=None)),
    "fix": growth(lambda: kbitlint.fix(model)),
    "undo": growth(lambda: kbitlint.undo(model)),
    "the tensor itself, copied": growth(lambda: model.large.clone()),
}))
"""


@pytest.mark.slow
def test_a_live_model_with_a_gigabyte_is_audited_fixed_and_undone_without_a_copy():
    grown = measured(LIVE)

    assert grown.pop("the tensor itself, copied") > 900e6  # so that the measure is known to see one
    assert {name: size for name, size in grown.items() if size > 150e6} == {}


@pytest.mark.slow
def test_a_shard_of_a_gigabyte_is_read_by_its_header(tmp_path):
    import shutil

    import tiny

    folder = shutil.copytree(tiny.checkpoint(), tmp_path / "model")
    header = json.dumps({"large": {"dtype": "F32", "shape": [250_000_000], "data_offsets": [0, 10**9]}}).encode()
    with (folder / "model-large.safetensors").open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        for _ in range(1000):
            file.write(b"\1" * 10**6)
    code = """
kbitlint.check(str(tiny.checkpoint()), quantize="nf4", plan=True); kbitlint.memory(str(tiny.checkpoint()), quantize="nf4")
read = lambda: next(int(line.split()[1]) for line in open("/proc/self/io") if line.startswith("rchar"))
before = read()
print(json.dumps({
    "check": growth(lambda: kbitlint.check(sys.argv[1], quantize="nf4")),
    "plan": growth(lambda: kbitlint.check(sys.argv[1], quantize="nf4", plan=True)),
    "memory": growth(lambda: kbitlint.memory(sys.argv[1], quantize="nf4")),
    "bytes read": read() - before,
}))
"""

    grown = measured(code, folder)

    assert {name: size for name, size in grown.items() if size > 100e6} == {}


def test_the_adapter_of_a_gigabyte_is_looked_at_in_pieces(tmp_path):
    import checkpoint_cases

    folder = checkpoint_cases.adapter(tmp_path / "adapter", None)
    name = "base_model.model.a.lora_B.weight"
    header = json.dumps({name: {"dtype": "F32", "shape": [250_000_000, 1], "data_offsets": [0, 10**9]}}).encode()
    with (folder / "adapter_model.safetensors").open("wb") as file:  # sparse, and zero to its end
        file.write(len(header).to_bytes(8, "little") + header)
        file.truncate(8 + len(header) + 10**9)
    code = """
from kbitlint.files.checkpoint import read_checkpoint
from pathlib import Path
print(json.dumps({"read": growth(lambda: read_checkpoint(Path(sys.argv[1])))}))
"""

    assert measured(code, folder)["read"] < 20e6


def test_a_huge_data_file_in_a_repository_is_not_read_into_memory(tmp_path):
    (tmp_path / "train.py").write_text("import peft\n")
    with (tmp_path / "data.json").open("wb") as file:
        file.write(b'["load_in_4bit"')
        file.truncate(2 * 10**9)
    code = """
(report := kbitlint.check("train.py"))
print(json.dumps({"read": growth(lambda: kbitlint.check("."))}))
"""

    assert measured(code, cwd=tmp_path)["read"] < 50e6
