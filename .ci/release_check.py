"""Whether a release would work: builds it, looks into it, installs it as people do, and runs it there.

    make release-check                        # everything; 2 GB in a temporary folder
    python .ci/release_check.py --no-model   # without the environments that hold torch

The sdist and the wheel are built from the files that git tracks, so that nothing that lies around gets in. Each is
installed in fresh virtual environments: bare, where everything that needs no torch must work and everything else must
say in one line what it needs; and with ``[model]``, where a tiny model is audited and the demo runs. The bare wheel is
tried with every Python that the classifiers name and that is found as ``python3.N``. Prints what it did and leaves with
1 where a check failed.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
import zipfile
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[1]
#: what a release does not hold: files of the code host and of CI
HOST = (".github/", ".ci/", ".gitignore")
#: what setuptools adds to the files that git tracks
MADE = {"PKG-INFO", "setup.cfg"}
EXPECTED = {"METADATA", "RECORD", "WHEEL", "entry_points.txt", "top_level.txt", "licenses/LICENSE"}

SCRIPT = """
from peft import LoraConfig, get_peft_model, prepare_model_for_kbit_training
from transformers import AutoModelForCausalLM, BitsAndBytesConfig

config = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype="bfloat16")
model = AutoModelForCausalLM.from_pretrained("a/model", quantization_config=config)
model = prepare_model_for_kbit_training(model)
model = get_peft_model(model, LoraConfig(target_modules="all-linear"))
""".lstrip()

FACTORY = """
from transformers import BitsAndBytesConfig, LlamaConfig, LlamaForCausalLM

SIZES = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}


def build_model():
    config = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4")
    return LlamaForCausalLM.from_pretrained("llama", quantization_config=config)


def save():
    LlamaForCausalLM(LlamaConfig(**SIZES, num_key_value_heads=2, vocab_size=256)).save_pretrained("llama")
""".lstrip()


class Failed(Exception):  # noqa: N818  # a check that failed, not an error of this script
    """What a check found."""


@dataclass
class Checks:
    """What was checked, with what came of it."""

    rows: list[tuple[str, float, str]] = field(default_factory=list)

    def do(self, name, check, *arguments):
        """Run a check; a failure is noted and the rest goes on."""
        start = time.perf_counter()
        problem, result = "", None
        try:
            result = check(*arguments)
        except Failed as error:
            problem = str(error)
        self.rows.append((name, time.perf_counter() - start, problem))
        print(f"{'FAIL' if problem else 'ok':4}  {self.rows[-1][1]:6.1f} s  {name}", flush=True)
        if problem:
            print("      " + problem.replace("\n", "\n      "), flush=True)
        return result


def ran(*command, cwd=None, exits=0, says=(), one_line=False):
    """What a command printed. Raises Failed where it ends otherwise than expected, or with a traceback."""
    done = subprocess.run([str(part) for part in command], cwd=cwd, capture_output=True, text=True, check=False)
    shown = f"{' '.join(Path(str(part)).name for part in command[:1])} {' '.join(map(str, command[1:]))}"
    tail = (done.stdout + done.stderr).strip()[-1500:]
    if done.returncode != exits:
        raise Failed(f"{shown}: exit code {done.returncode} instead of {exits}\n{tail}")
    missing = [text for text in says if text not in done.stdout + done.stderr]
    if missing or "Traceback" in done.stderr:
        raise Failed(f"{shown}: does not say {missing}\n{tail}")
    if one_line and (done.stdout or len(done.stderr.splitlines()) != 1):
        raise Failed(f"{shown}: says more than one line\n{tail}")
    return done.stdout


def tracked():
    """The files that git tracks, as they are in the working tree."""
    names = ran("git", "ls-files", "-z", cwd=ROOT).split("\0")
    return {name for name in names if name and (ROOT / name).is_file()}


def of_sdist(files):
    """What an sdist of these files holds, without what setuptools makes."""
    return {name for name in files if not name.startswith(HOST)}


def of_wheel(files):
    """What a wheel of these files holds, without its dist-info."""
    rules = {f"kbitlint_{name}" for name in files if name.startswith("rules/")}
    return rules | {name for name in files if name.startswith("kbitlint/")}


def different(found, expected):
    """Raises Failed where two sets of names differ."""
    missing, more = sorted(expected - found), sorted(found - expected)
    if missing or more:
        raise Failed(f"missing: {', '.join(missing) or 'nothing'}\nnot expected: {', '.join(more) or 'nothing'}")


def check_sdist(path, files):
    """The sdist holds every tracked file but those of the code host."""
    with tarfile.open(path) as archive:
        names = {member.name.partition("/")[2] for member in archive.getmembers() if member.isfile()}
    different({name for name in names if not name.startswith("kbitlint.egg-info/")} - MADE, of_sdist(files) - MADE)


def check_wheel(path, files):
    """The wheel holds the two packages, with the data that they read, the licence and nothing else."""
    with zipfile.ZipFile(path) as archive:
        names = set(archive.namelist())
        (info,) = {name.partition("/")[0] for name in names if ".dist-info/" in name}
        metadata = archive.read(f"{info}/METADATA").decode()
    different(names, of_wheel(files) | {f"{info}/{name}" for name in EXPECTED})
    missing = [line for line in ("License-Expression: Apache-2.0", "License-File: LICENSE") if line not in metadata]
    if missing:
        raise Failed(f"METADATA does not say {missing}")


def built(python, files, out):
    """Build both from a copy of the tracked files; gives (sdist, wheel)."""
    with tempfile.TemporaryDirectory() as folder:
        for name in files:
            place = Path(folder) / name
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, place)
        ran(python, "-m", "build", "--outdir", out, folder)
    return next(out.glob("*.tar.gz")), next(out.glob("*.whl"))


def interpreters():
    """Every Python that the classifiers name: (its version, where it is found or None)."""
    for version in re.findall(r"Programming Language :: Python :: (3\.\d+)", (ROOT / "pyproject.toml").read_text()):
        python = shutil.which(f"python{version}")
        runs = python and subprocess.run([python, "-c", ""], capture_output=True, check=False).returncode == 0
        yield version, python if runs else None


def environment(folder, artifact, extra="", python=sys.executable):
    """A fresh virtual environment with the artifact in it; gives its folder of programs."""
    ran(python, "-m", "venv", folder)
    pip = (folder / "bin/python", "-m", "pip", "--disable-pip-version-check", "install", "-c", ROOT / "constraints.txt")
    if extra:  # first, as the Makefile does it and for the same reason
        constraints = (ROOT / "constraints.txt").read_text().splitlines()
        ran(*pip, next(line for line in constraints if line.startswith("torch==")))
    ran(*pip, f"kbitlint{extra} @ {artifact.as_uri()}")
    ran(folder / "bin/python", "-m", "pip", "--disable-pip-version-check", "check", says=["No broken requirements found"])
    return folder / "bin"


def check_bare(programs, place, version):
    """Everything that needs no torch works without it; everything else says in one line what it needs."""
    kbitlint = programs / "kbitlint"
    python = programs / "python"
    ran(python, "-c", "import importlib.util as u; raise SystemExit(u.find_spec('torch') is not None)", cwd=place)
    ran(kbitlint, "--version", cwd=place, says=[f"kbitlint {version}\n"])
    ran(kbitlint, "rules", cwd=place, says=["KB101  low-precision-norm", "KB401  reentrant-checkpointing"])
    ran(kbitlint, "explain", "KB301", cwd=place, says=["missing-input-grad-hook"])
    ran(kbitlint, "check", "train.py", "--fail-on", "info", cwd=place, exits=1, says=["KB401 reentrant-checkpointing"])
    ran(kbitlint, "check", ".", "--fail-on", "info", cwd=place, exits=1, says=["KB401 reentrant-checkpointing"])
    read = {
        "json": lambda text: json.loads(text)["targets"],
        "sarif": lambda text: json.loads(text)["runs"],
        "html": lambda text: text.startswith("<!doctype html>"),
        "github": lambda text: text.startswith("::"),
        "junit": lambda text: text.startswith("<?xml"),
    }
    code = "from kbitlint.output.formats import NAMES; print(*NAMES)"
    for form in ran(python, "-c", code, cwd=place).split():
        reads = read.get(form, bool)
        text = ran(kbitlint, "check", "train.py", "--fail-on", "info", "--format", form, cwd=place, exits=1, says=["KB401"])
        if not reads(text):
            raise Failed(f"--format {form} gives something else: {text[:200]}")
    on_files = "KB820,KB821,KB823,KB824"  # KB822 and KB825 look at a model too
    ran(kbitlint, "check", "packed", "--select", on_files, cwd=place, says=["clean", "no weights read"])
    ran(kbitlint, "check", "packed/config.json", "packed/model.safetensors", cwd=place, exits=1, says=["KB8"])
    for asked in (["check", "packed"], ["check", "factory.py:build_model", "--meta"], ["memory", "packed"], ["demo"]):
        needs = "needs torch, which is not installed: pip install 'kbitlint[model]'"
        ran(kbitlint, *asked, cwd=place, exits=2, says=[needs], one_line=True)
    code = "import kbitlint, importlib.resources as r; assert r.files('kbitlint').joinpath('py.typed').is_file()"
    ran(python, "-c", code, cwd=place)


def check_model(programs, place):
    """A tiny model is audited, as a factory and as a folder, and the demo does the main job."""
    kbitlint = programs / "kbitlint"
    ran(programs / "python", "-c", "import factory; factory.save()", cwd=place)
    ran(kbitlint, "check", "factory.py:build_model", "--meta", cwd=place, exits=1, says=["LlamaForCausalLM", "model and trace"])
    folder = ("check", "llama", "--quantize", "nf4")
    ran(kbitlint, *folder, cwd=place, exits=1, says=["LlamaForCausalLM", "files, model and trace"])
    ran(kbitlint, "memory", "llama", "--quantize", "nf4", cwd=place, says=["kbitlint's fix", "quantized weights"])
    ran(kbitlint, "demo", "--device", "cpu", cwd=place, says=["The model was audited, fixed and proven"])


def written(place):
    """A folder to work in, away from the repository: a script, a factory, a damaged packed checkpoint."""
    place.mkdir()
    (place / "train.py").write_text(SCRIPT)
    (place / "factory.py").write_text(FACTORY)
    packed = place / "packed"
    packed.mkdir()
    quantization = {"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}
    (packed / "config.json").write_text(json.dumps({"model_type": "llama", "quantization_config": quantization}))
    header = {"lm_head.weight": {"dtype": "U8", "shape": [8, 1], "data_offsets": [0, 8]}}  # packed, without its state
    content = json.dumps(header).encode()
    (packed / "model.safetensors").write_bytes(len(content).to_bytes(8, "little") + content + bytes(8))
    return place


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--no-model", action="store_true", help="leave out the environments that hold torch")
    arguments = parser.parse_args()
    checks, files = Checks(), tracked()
    with tempfile.TemporaryDirectory(prefix="kbitlint-release-") as folder:
        work = Path(folder)
        place = written(work / "work")
        made = checks.do("python -m build", built, sys.executable, files, work / "dist")
        if made is not None:
            sdist, wheel = made
            version = sdist.name.removeprefix("kbitlint-").removesuffix(".tar.gz")
            checks.do("twine check --strict", ran, sys.executable, "-m", "twine", "check", "--strict", sdist, wheel)
            checks.do("the sdist holds the tracked files", check_sdist, sdist, files)
            checks.do("the wheel holds the packages, their data, the licence", check_wheel, wheel, files)
            for kind, artifact in (("wheel", wheel), ("sdist", sdist)):
                programs = checks.do(f"{kind}: installs bare, pip check", environment, work / f"bare-{kind}", artifact)
                if programs is not None:
                    checks.do(f"{kind}: works without torch", check_bare, programs, place, version)
            for found, python in interpreters():
                if python is None:
                    print(f"none  {'':8}  Python {found}: not found, so not checked")
                    continue
                name = f"Python {found}: the bare wheel"
                programs = checks.do(f"{name} installs, pip check", environment, work / f"bare-{found}", wheel, "", python)
                if programs is not None:
                    checks.do(f"{name} works without torch", check_bare, programs, place, version)
            for kind, artifact in (("wheel", wheel), ("sdist", sdist)) if not arguments.no_model else ():
                venv = work / f"model-{kind}"
                programs = checks.do(f"{kind}: installs with [model], pip check", environment, venv, artifact, "[model]")
                if programs is not None:
                    checks.do(f"{kind}: audits a model, runs the demo", check_model, programs, place)
                shutil.rmtree(venv, ignore_errors=True)  # one at a time: each holds torch
    failed = [name for name, _, problem in checks.rows if problem]
    print(f"\n{len(checks.rows) - len(failed)} of {len(checks.rows)} checks passed")
    raise SystemExit(bool(failed))


if __name__ == "__main__":
    main()
