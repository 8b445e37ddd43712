"""What SECURITY.md says of each kind of target: what is read, run, written and reached, as Python's audit events show it."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import tiny
from checkpoint_cases import adapter, lora
from script_cases import SCRIPT

ROOT = Path(__file__).parents[1]
WATCH = """
import json, os, sys

reached, written, run = set(), set(), set()

def hook(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.sendto", "urllib.Request"):
        reached.add(f"{event} {arguments if event == 'socket.getaddrinfo' else arguments[1:]}")
    elif event in ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "pty.spawn"):
        run.add(f"{event} {arguments[0]}")
    elif event == "pickle.find_class":
        run.add(f"pickle {arguments}")
    elif event == "open" and isinstance(arguments[0], (str, bytes)):
        mode, flags = arguments[1], arguments[2] or 0
        if (isinstance(mode, str) and set(mode) & set("wax+")) or flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            written.add(os.path.abspath(os.fsdecode(arguments[0])))
    elif event in ("os.rename", "os.remove", "os.mkdir", "os.link", "os.symlink", "os.rmdir"):
        written.add(os.path.abspath(os.fsdecode(arguments[1 if event == "os.rename" else 0])))
    elif event == "exec" and getattr(arguments[0], "co_filename", "").startswith(os.getcwd()):
        run.add(f"code of {os.path.relpath(arguments[0].co_filename)}")

# what libraries do when they are imported is theirs
import torch, transformers, peft, bitsandbytes, accelerate, huggingface_hub, kbitlint.jobs.preload
sys.addaudithook(hook)
from kbitlint.cli import main

found = []
for folder, command in json.loads(sys.argv[1]):
    os.chdir(folder)
    here = os.getcwd() + "/"
    for seen in (reached, written, run):
        seen.clear()
    try:
        main(command, prog_name="kbitlint")
    except SystemExit as error:
        code = error.code
    paths = {path for path in written if not path.startswith(("/dev/", "/proc/")) and "__pycache__" not in path}
    found.append({
        "command": " ".join(command),
        "code": code,
        "reached": sorted(reached),
        "run": sorted(run),
        "written": sorted(path.removeprefix(here) for path in paths),
    })
sys.stdout.flush()
print("\\nSEEN" + json.dumps(found))
"""


def seen(folder, commands, offline="0"):
    """What each command, with its working folder, did, all of them in one process."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", WATCH, json.dumps([(str(place), command) for place, command in commands])],
        cwd=folder,
        check=False,
        capture_output=True,
        text=True,
        timeout=240,
        env={
            **os.environ,
            "PYTHONPATH": str(ROOT / "tests" / "support"),
            "HF_HUB_OFFLINE": offline,
            "HF_ENDPOINT": "http://127.0.0.1:9",  # nobody is there, so no test leaves this machine
            "HF_HOME": str(folder / "cache"),
        },
    )
    assert "SEEN" in done.stdout, done.stderr[-3000:]
    return json.loads(done.stdout.rpartition("SEEN")[2])


def made(folder):
    folder.mkdir()
    shutil.copytree(tiny.checkpoint(), folder / "model")
    (folder / "model" / "evil.py").write_text("open('ran', 'w')\n")
    adapter(folder / "adapter", lora("model.layers.0.self_attn.q_proj"), folder / "model", target_modules=["q_proj"], r=2)
    (folder / "scripts").mkdir()
    (folder / "scripts" / "train.py").write_text(SCRIPT + "open('ran', 'w')\n")
    (folder / "scripts" / "recipe.yaml").write_text(
        "base_model: a/b\nload_in_4bit: true\nadapter: qlora\nmicro_batch_size: 1\n"
    )
    (folder / "build.py").write_text(
        "from transformers import AutoModelForCausalLM\n"
        f"def build():\n    return AutoModelForCausalLM.from_pretrained({str(folder / 'model')!r})\n"
    )
    (folder / "launch.json").write_text('{"zero_optimization": {"stage": 2}}')
    (folder / "baseline.json").write_text('{"version": 2, "files": {}}')
    (folder / "pyproject.toml").write_text("[tool.kbitlint]\nfail-on = 'error'\n")
    return folder


CHECKS = (
    ("check", "model", "--quantize", "nf4"),
    ("check", "model", "--quantize", "nf4", "--format", "html", "--diff"),
    ("check", "model/config.json"),
    ("check", "adapter"),
    ("check", "scripts", "--no-cache"),
    ("check", "scripts/train.py", "--diff"),
    ("check", "scripts", "--no-cache", "--baseline", "baseline.json", "--training", "launch.json"),
    ("memory", "model", "--quantize", "nf4"),
    ("config",),
    ("rules",),
)


#: the folder of kept results
CACHE = ".kbitlint_cache"
#: command -> the files that it may write, beside kept results
WRITING = {
    ("--fix", "scripts"): {"scripts/train.py", "scripts/recipe.yaml"},
    ("--fix", "model", "--quantize", "nf4", "--device", "cpu"): {"model/kbitlint.json"},
    ("check", "scripts", "--baseline", "b.json", "--write-baseline"): {"b.json"},
    ("check", "scripts", "--output-file", "report.txt"): {"report.txt"},
    ("init",): {".pre-commit-config.yaml"},
}


#: folder -> the commands that are run in it, in this order
COMMANDS = {
    "checked": CHECKS,
    "kept": (("check", "scripts"),),
    "run": (("check", "build.py:build", "--meta"),),
    "written": tuple(WRITING),
}


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """The folder of a project for each kind of command."""
    return {name: made(tmp_path_factory.mktemp("projects") / name) for name in COMMANDS}


@pytest.fixture(scope="module")
def before(project):
    """The paths in the project that is written into, before it is."""
    return paths_in(project["written"])


@pytest.fixture(scope="module")
def found(project, before, tmp_path_factory):
    """What each command did, by folder: one process runs them all, because libraries take seconds to import."""
    commands = [(project[name], command) for name, several in COMMANDS.items() for command in several]
    did = iter(seen(tmp_path_factory.mktemp("working"), commands))
    return {name: [next(did) for _ in several] for name, several in COMMANDS.items()}


def paths_in(folder):
    return {path for path in folder.rglob("*") if "__pycache__" not in path.parts}


def test_a_check_of_files_runs_nothing_writes_nothing_and_reaches_nobody(found):
    for did in found["checked"]:
        assert did["code"] in (0, 1), did
        assert did == {"command": did["command"], "code": did["code"], "reached": [], "run": [], "written": []}


def test_the_results_of_a_folder_are_kept_in_one_place(found):
    (did,) = found["kept"]

    assert did["code"] in (0, 1)
    assert did["written"] == [path for path in did["written"] if path.startswith(CACHE)] != []
    assert (did["reached"], did["run"]) == ([], [])


def test_a_factory_is_run_and_nothing_else(found):
    (did,) = found["run"]

    assert did["code"] in (0, 1)
    assert (did["reached"], did["run"], did["written"]) == ([], ["code of build.py"], [])


def test_what_is_asked_for_is_written_and_nothing_else(found, before, project):
    temporary = re.compile(r"\.([^/]+)\.[0-9a-f]{8}\.kbitlint-tmp$")

    for did, (command, written) in zip(found["written"], WRITING.items(), strict=True):
        places = {temporary.sub(lambda match: match[1], path) for path in did["written"] if not path.startswith(CACHE)}
        assert (did["code"] in (0, 1), did["reached"], did["run"], places) == (True, [], [], written), command

    folder = project["written"]
    new = {path.relative_to(folder).as_posix() for path in paths_in(folder) - before}
    new = {path for path in new if not path.startswith(CACHE)}
    assert new == {"model/kbitlint.json", "b.json", "report.txt", ".pre-commit-config.yaml"}


@pytest.mark.slow
def test_a_hub_id_is_the_one_target_that_reaches_somebody(tmp_path):
    commands = [(tmp_path, ("check", "nobody/nothing"))]
    (online,) = seen(tmp_path, commands)
    (offline,) = seen(tmp_path, commands, offline="1")

    assert (online["code"], online["run"]) == (2, [])
    assert [line for line in online["reached"] if "127.0.0.1" in line] == online["reached"] != []
    assert (offline["code"], offline["reached"], offline["run"]) == (2, [], [])


def test_every_claim_names_what_holds_it():
    """SECURITY.md names tests and sections of benchmarks/robustness/run.py; they must be there."""
    text = (ROOT / "SECURITY.md").read_text()
    tests = set(re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", text))
    sections = set(re.findall(r"robustness `(\w+)`", text))

    assert len(tests) > 10
    assert [pair for pair in sorted(tests) if f"def {pair[1]}(" not in (ROOT / pair[0]).read_text()] == []
    known = (ROOT / "benchmarks" / "robustness" / "run.py").read_text()
    assert [name for name in sorted(sections) if f"def {name}(tally" not in known] == []
