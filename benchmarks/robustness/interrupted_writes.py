"""Every kind of write that kbitlint makes, under kills, failing calls, a full disk and a read-only disk."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.robustness.trials import Tally, contents, run

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SCRIPT = """import torch
from peft import LoraConfig, get_peft_model, prepare_model_for_kbit_training
from transformers import AutoModelForCausalLM, BitsAndBytesConfig

config = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_compute_dtype=torch.bfloat16)
model = AutoModelForCausalLM.from_pretrained("m", quantization_config=config)
model = prepare_model_for_kbit_training(model)
model = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM"))
"""
RECIPE = """base_model: org/model
load_in_4bit: true
adapter: qlora
micro_batch_size: 1
gradient_checkpointing: true
gradient_checkpointing_kwargs: {use_reentrant: true}
"""


@dataclass(frozen=True)
class Write:
    """One kind of write: a function that makes the files before it, and the command line that writes."""

    name: str
    make: Callable[[Path], None]
    arguments: tuple[str, ...]


def _checkpoint(folder: Path) -> None:
    """Make a checkpoint whose fix writes both config.json and kbitlint.json."""
    from tests.support import tiny

    shutil.copytree(tiny.checkpoint(), folder, dirs_exist_ok=True)
    path = folder / "config.json"
    config = json.loads(path.read_text())
    bits = {"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}
    path.write_text(json.dumps({**config, "quantization_config": {**bits, "load_in_8_bit": False}}, indent=2) + "\n")


def _plain_checkpoint(folder: Path) -> None:
    from tests.support import tiny

    shutil.copytree(tiny.checkpoint(), folder, dirs_exist_ok=True)


def _config(folder: Path) -> None:
    """Make a checkpoint whose fix writes config.json alone."""
    folder.mkdir(parents=True, exist_ok=True)
    quantization = {"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_compute_dtype": "float32"}
    content = {"model_type": "llama", "dtype": "bfloat16", "quantization_config": quantization}
    (folder / "config.json").write_text(json.dumps(content, indent=2) + "\n")


def _scripts(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(12):
        (folder / f"train_{number}.py").write_text(SCRIPT * 5)


def _notebooks(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    cell = {
        "cell_type": "code",
        "execution_count": None,
        "metadata": {},
        "outputs": [],
        "source": SCRIPT.splitlines(keepends=True),
    }
    for number in range(4):
        text = json.dumps({"cells": [cell] * 5, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}, indent=1)
        (folder / f"train_{number}.ipynb").write_text(text + "\n")


def _recipes(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(12):
        (folder / f"recipe_{number}.yaml").write_text(RECIPE)


def _known(folder: Path) -> None:
    """Make scripts, and a baseline that accepts more violations than they have."""
    _scripts(folder)
    place = {f"train_{number}.py": 900 + number for number in range(400)}
    content = {"version": 1, "targets": {".": {"KB401": place, "KB301": place}}}
    (folder / "baseline.json").write_text(json.dumps(content, indent=2, sort_keys=True) + "\n")


def _project(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "pyproject.toml").write_text('[project]\nname = "mine"\n' + "# what must not be lost\n" * 2000)


_BASELINE = ("check", ".", "--baseline", "baseline.json")
WRITES = (
    Write("checkpoint folder", _plain_checkpoint, ("--fix", ".", "--quantize", "nf4", "--device", "cpu")),
    Write("config.json", _config, ("--fix", "config.json", "--unsafe-fixes")),
    Write("scripts", _scripts, ("--fix", ".", "--unsafe-fixes")),
    Write("notebooks", _notebooks, ("--fix", ".", "--unsafe-fixes")),
    Write("YAML", _recipes, ("--fix", ".", "--unsafe-fixes")),
    Write("baseline, written", _known, (*_BASELINE, "--write-baseline")),
    Write("baseline, pruned", _known, (*_BASELINE, "--prune-baseline")),
    Write("init", _project, ("init",)),
    Write("--output-file", _known, ("check", ".", "--output-file", "baseline.json", "--format", "json")),
)
#: audit events that Python raises before the steps of a write
_EVENTS = frozenset({"open", "os.rename", "os.remove", "os.chmod", "os.chown", "fcntl.flock", "os.listdir", "os.scandir"})


def _fresh(write: Write, root: Path) -> Path:
    folder = root / "work"
    shutil.rmtree(folder, ignore_errors=True)
    made = root / "made" / write.name.replace(" ", "-").strip("-")
    if not made.exists():
        write.make(made)
    shutil.copytree(made, folder, symlinks=True)
    return folder


def _count_events(place: Path) -> None:
    """Write the number of audit events up to the last rename of a file into ``place``."""
    seen = [0]

    def hook(event: str, _: Any) -> None:
        if event in _EVENTS:
            seen[0] += 1
            if event == "os.rename":
                number = seen[0]
                place.write_text(str(number))
                seen[0] = number  # the events of this write do not count

    sys.addaudithook(hook)


def _kill_at(number: int) -> None:
    """Kill this process just before the audit event of that number."""
    seen = [0]

    def hook(event: str, _: Any) -> None:
        if event in _EVENTS:
            seen[0] += 1
            if seen[0] == number:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)


def kills(tally: Tally, count: int, seed: int = 0) -> None:
    """Kill processes during every kind of write, ``count`` times each.

    Every other kill comes just before an audit event near the end of the run. The rest come after a random time.
    """
    chance = random.Random(seed)  # noqa: S311  # a sample, not a secret
    root = Path(tempfile.mkdtemp(prefix="kbitlint-kills-"))
    for write in WRITES:
        folder = _fresh(write, root)
        original = contents(folder)
        whole_run = run(write.arguments, folder, before=lambda: _count_events(root / "events"))
        whole, events = contents(folder), int((root / "events").read_text())
        tally.case(f"{write.name}, undisturbed", whole_run.problem, None if whole != original else "wrote nothing")
        found = dict.fromkeys(("killed", "untouched", "partly", "done", "temporary", "after the next run"), 0)
        for number in range(count):
            folder = _fresh(write, root)
            if number % 2:
                step = events + 2 - int(chance.expovariate(1 / 10))
                made = run(write.arguments, folder, before=lambda step=step: _kill_at(max(1, step)))
            else:
                after = chance.uniform(0.0 if number % 4 else 0.7, 1.02) * whole_run.seconds
                made = run(write.arguments, folder, after=after)
            _judge(tally, write, folder, (original, whole), made, found)
        tally.notes.append(f"{write.name}: " + ", ".join(f"{value} {name}" for name, value in found.items()))
    shutil.rmtree(root)


def _judge(tally: Tally, write: Write, folder: Path, known: Any, made: Any, found: dict[str, int]) -> None:
    """Judge a killed run: each file must have its old or its new content, and the next run must finish the work."""
    original, whole = known
    content = contents(folder)
    left = {file for file in content if file.endswith(".kbitlint-tmp")}
    kept = {file: data for file, data in content.items() if file not in left}
    damaged = [file for file in original.keys() | kept.keys() if kept.get(file) not in (original.get(file), whole.get(file))]
    found["killed"] += made.code == -signal.SIGKILL
    found["untouched" if kept == original else "done" if kept == whole else "partly"] += 1
    found["temporary"] += bool(left)
    problem = f"damaged {damaged}" if damaged else None
    if made.code >= 0:
        problem = problem or made.problem
    if left and not problem:
        again = run(write.arguments, folder)
        after = contents(folder)
        still = [file for file in after if file.endswith(".kbitlint-tmp")]
        found["after the next run"] += bool(still)
        problem = again.problem or (None if still or after == whole else "the next run did not finish the work")
    tally.case(f"{write.name}, kill {sum(list(found.values())[1:4])}", problem)


#: the calls of a write that can fail on a disk
_CALLS = ("os.open", "io.write", "os.fsync", "os.replace", "os.chmod")


def _half_written(seen: list[int], number: int, code: int) -> Any:
    """Return an ``os.fdopen`` whose file accepts half of the n-th write and then raises OSError."""

    class Half:
        def __init__(self, file: Any) -> None:
            self.file = file

        def __enter__(self) -> Any:
            return self

        def __exit__(self, *_: object) -> None:
            self.file.close()

        def __getattr__(self, name: str) -> Any:
            return getattr(self.file, name)

        def write(self, content: bytes) -> Any:
            seen[0] += 1
            if seen[0] != number:
                return self.file.write(content)
            self.file.write(content[: len(content) // 2])
            self.file.flush()
            raise OSError(code, os.strerror(code))

    return lambda *arguments, **keywords: Half(os.fdopen(*arguments, **keywords))


def _refuse(call: str, number: int, code: int) -> None:
    """Make the n-th of these calls raise OSError in this process."""
    import pathlib

    from kbitlint.files import atomic

    seen = [0]

    def refusing(genuine: Any) -> Any:
        def function(*arguments: Any, **keywords: Any) -> Any:
            seen[0] += 1
            if seen[0] == number:
                raise OSError(code, os.strerror(code))
            return genuine(*arguments, **keywords)

        return function

    class Calls:
        """The module ``os`` as ``kbitlint.files.atomic`` uses it."""

        def __getattr__(self, name: str) -> Any:
            return getattr(os, name)

    calls = Calls()
    atomic.os = calls  # type: ignore[assignment, attr-defined]  # this process ends soon
    if call in ("os.open", "os.fsync"):
        setattr(calls, call[3:], refusing(getattr(os, call[3:])))
    elif call == "io.write":
        calls.fdopen = _half_written(seen, number, code)  # type: ignore[attr-defined]  # see above
    else:
        name = call[3:]
        setattr(pathlib.Path, name, refusing(getattr(pathlib.Path, name)))


def faults(tally: Tally, most: int) -> None:
    """Fail each call of each write in turn: files must keep their content, and no new file may be left."""
    root = Path(tempfile.mkdtemp(prefix="kbitlint-faults-"))
    codes = (errno.ENOSPC, errno.EIO, errno.EACCES, errno.EDQUOT, errno.EROFS)
    for write in WRITES:
        folder = _fresh(write, root)
        original = contents(folder)
        run(write.arguments, folder)
        whole = contents(folder)
        for call in _CALLS:
            for number in range(1, most + 1):
                folder = _fresh(write, root)
                code = codes[(number + len(call)) % len(codes)]
                made = run(write.arguments, folder, before=lambda c=call, n=number, e=code: _refuse(c, n, e))
                content = contents(folder)
                done = content == whole and made.code in (0, 1)  # the write makes fewer than n such calls
                damaged = [
                    file
                    for file in original.keys() | content.keys()
                    if content.get(file) not in (original.get(file), whole.get(file))
                ]
                silent = made.code != 2 and not done
                tally.case(
                    f"{write.name}, {call} {number} refuses",
                    made.problem,
                    f"damaged or left {damaged}" if damaged else None,
                    f"left with {made.code} without the write" if silent else None,
                    f"said {made.err!r}" if made.code == 2 and made.err.count("\n") != 1 else None,
                )
                if done and number > 1:
                    break
    shutil.rmtree(root)


@contextlib.contextmanager
def _mounted(size: int) -> Iterator[Path | None]:
    """Mount a file system of that size and yield its folder, or None if this user may not mount one."""
    place = Path(tempfile.mkdtemp(prefix="kbitlint-disk-"))
    mount = shutil.which("mount")
    made = mount and os.geteuid() == 0
    if made:
        done = subprocess.run([mount, "-t", "tmpfs", "-o", f"size={size}", "tmpfs", place], check=False, capture_output=True)
        made = done.returncode == 0
    try:
        yield place if made else None
    finally:
        if made:
            subprocess.run(["umount", "-l", place], check=False, capture_output=True)  # noqa: S607  # the system's own
        shutil.rmtree(place, ignore_errors=True)


def _filled(folder: Path) -> None:
    """Fill the disk until no byte is left."""
    with contextlib.suppress(OSError), (folder.parent / "filler").open("wb") as file:
        while True:
            file.write(b"\0" * 4096)
            file.flush()


@contextlib.contextmanager
def _copied(write: Write, root: Path, *, spare: int) -> Iterator[tuple[Path | None, Path, dict[str, bytes]]]:
    """Yield (a small disk or None, a copy of the files before the write, the contents of the copy)."""
    made = _fresh(write, root)
    with _mounted(sum(map(len, contents(made).values())) + spare) as disk:
        place = (disk or root / "copy") / "work"
        shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(made, place)
        yield disk, place, contents(place)


def full_disk(tally: Tally) -> None:
    """Try every kind of write on a full disk, and the output of commands to ``/dev/full``."""
    root = Path(tempfile.mkdtemp(prefix="kbitlint-full-"))
    for write in WRITES:
        with _copied(write, root, spare=2**20) as (disk, place, original):
            before = None
            if disk is None:
                before = _limit_files
            else:
                _filled(place)
            ended = tally.took(run(write.arguments, place, before=before))
            after = contents(place)
            how = "a full tmpfs" if disk else "RLIMIT_FSIZE"
            tally.case(
                f"{write.name} on {how}",
                ended.problem,
                None if after == original else f"changed {[name for name in after if after.get(name) != original.get(name)]}",
                None if ended.code == 2 and ended.err.count("\n") == 1 else f"left with {ended.code}: {ended.err!r}",
            )
    tally.notes.append(
        "the disk is " + ("a tmpfs that is filled" if disk else "limited by RLIMIT_FSIZE, as no tmpfs may be mounted")
    )
    folder = _fresh(WRITES[2], root)
    for arguments in (
        ("check", "."),
        ("check", ".", "--format", "json"),
        ("rules",),
        ("explain", "KB401"),
        ("config",),
        ("--version",),
    ):
        ended = tally.took(run(list(arguments), folder, output="/dev/full"))
        said = "No space left on device" in ended.err
        tally.case(f"{' '.join(arguments)} > /dev/full", ended.problem, None if said else f"says {ended.err!r}")
    shutil.rmtree(root)


def _limit_files() -> None:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))


def read_only(tally: Tally) -> None:
    """Try every kind of write in a read-only folder."""
    root = Path(tempfile.mkdtemp(prefix="kbitlint-read-only-"))
    for write in WRITES:
        with _copied(write, root, spare=2**22) as (disk, place, original):
            if disk is not None:
                subprocess.run(["mount", "-o", "remount,ro", disk], check=True, capture_output=True)  # noqa: S607  # the system's own
            else:
                place.chmod(0o500)
            ended = tally.took(run(write.arguments, place))
            tally.case(
                f"{write.name} in a read-only folder",
                ended.problem,
                None if contents(place) == original else "changed something",
                None if ended.code == 2 and ended.err.count("\n") == 1 else f"left with {ended.code}: {ended.err!r}",
            )
            checked = tally.took(run(["check", "."], place))
            tally.case(f"check of {write.name} in a read-only folder", checked.problem)
            if disk is None:
                place.chmod(0o700)
    tally.notes.append(
        "the folder is " + ("a tmpfs mounted read-only" if disk else "without write permission, as this is not root")
    )
    shutil.rmtree(root)


def edits(tally: Tally, families: tuple[str, ...]) -> None:
    """Stop the fix of a model at each of its edits: the model must be as before.

    ``benchmarks.truth.undo`` does this for every class.
    """
    from benchmarks.truth.undo import undone
    from tests.support import tiny

    for family in families:
        start = time.perf_counter()
        line = undone(tiny.load(family))
        tally.tried += line["edits"] - 1
        tally.case(f"{family}, stopped at each of {line['edits']} edits", None if line["outcome"] == "ok" else str(line))
        tally.slowest = max(tally.slowest, time.perf_counter() - start)
