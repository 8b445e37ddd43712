"""Time and memory of ``kbitlint check FILE`` by the size and the shape of the file, with a process for each run.

    python -m benchmarks.robustness.growth [NAME ...] [--quick] [--json FILE]

A shape is lost if its time grows faster than the file size to the power of 1.15, or if it takes more than 2 s or 300 MB
at 1 MB. Growth is computed from CPU seconds beyond those of a file of one line, so other programs change it little.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from benchmarks.robustness.shapes import SHAPES

SIZES = (10_000, 100_000, 400_000, 1_000_000)
EXPONENT, SECONDS, MEGABYTES = 1.15, 2.0, 300
#: CPU seconds by which two runs of the same file may differ
NOISE = 0.05
_LIMIT = 30
_KBITLINT = str(Path(sys.executable).with_name("kbitlint"))


@dataclass(frozen=True)
class Cost:
    """The cost and the output of one run."""

    seconds: float
    megabytes: int
    code: int
    said: str


def cost(arguments, folder):
    """Run ``kbitlint ARGUMENTS`` in a folder with at most 30 s of CPU time and 4 GB, and return the cost."""
    with tempfile.TemporaryFile() as out:
        child = os.fork()
        if child == 0:
            resource.setrlimit(resource.RLIMIT_CPU, (_LIMIT, _LIMIT))
            resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30))
            os.chdir(folder)
            os.dup2(out.fileno(), 1)
            os.dup2(out.fileno(), 2)
            os.execv(_KBITLINT, [_KBITLINT, *arguments])  # noqa: S606  # no shell is wanted
        _, status, used = os.wait4(child, 0)
        out.seek(0)
        text = out.read().decode("utf-8", "replace")
    return Cost(used.ru_utime + used.ru_stime, used.ru_maxrss // 1024, os.waitstatus_to_exitcode(status), text)


def _write(shape, size, folder):
    text = shape.make(size)
    name = f"train{shape.suffix}" if shape.suffix.startswith(".") else shape.suffix
    if shape.beside:
        (folder / shape.beside).write_text(text, encoding="utf-8")
        name = "train.py"
        text = "from peft import get_peft_model\n"
        if shape.beside == ".gitignore":
            (folder / ("a" * 120 + ".py")).write_text(text)
            deep = folder.joinpath(*["a"] * 60)
            deep.mkdir(parents=True)
            (deep / "train.py").write_text(text)
            name = "."
            (folder / "train.py").write_text(text)
            return [name]
    if name.endswith(".safetensors"):
        length, _, header = text.partition(" ")
        data = max((entry["data_offsets"][1] for entry in json.loads(header).values()), default=0)
        (folder / name).write_bytes(int(length).to_bytes(8, "little") + header.encode() + bytes(data))
        return [name]
    (folder / name).write_text(text, encoding="utf-8")
    return [name]


def measured(shape, sizes=SIZES):
    """Return the cost at each size, the lower of two if the first run takes under a second.

    Sizes after one that reaches the limit are left out.
    """
    found = []
    for size in sizes:
        with tempfile.TemporaryDirectory() as place:
            arguments = ["check", *_write(shape, size, Path(place)), *shape.options]
            one = cost(arguments, place)
            if one.seconds < 1:
                one = min(one, cost(arguments, place), key=lambda item: item.seconds)
        found.append(one)
        if one.seconds > _LIMIT - 1:
            break
    return found


def started():
    """Return the CPU seconds of a run over a file of one line, the least of three."""
    with tempfile.TemporaryDirectory() as place:
        Path(place, "train.py").write_text("x = 1\n")
        return min(cost(["check", "train.py"], place).seconds for _ in range(3))


def problem(costs, sizes, start):
    """Return the fault of a shape, or None if it has none."""
    last = costs[-1]
    if last.code not in (0, 1, 2) or "Traceback" in last.said:
        return f"ended with {last.code} at {sizes[len(costs) - 1]:,} bytes: {last.said.strip()[-150:]}"
    if "crashed" in last.said:
        return f"a rule crashed: {last.said[-200:]}"
    if len(costs) < len(sizes):
        return f"{last.seconds:.1f} s at {sizes[len(costs) - 1]:,} bytes"
    if exponent(costs, sizes, start) > EXPONENT:
        return f"grows with the power of {exponent(costs, sizes, start):.2f}"
    if last.seconds > SECONDS or last.megabytes > MEGABYTES:
        return f"takes {last.seconds:.2f} s and {last.megabytes} MB at {sizes[-1]:,} bytes"
    return None


def exponent(costs, sizes, start):
    """Return the steepest slope of log(time) over log(size) from any size to the largest."""
    times = [max(one.seconds - start, NOISE) for one in costs]
    return max(math.log(times[-1] / early) / math.log(sizes[-1] / size) for early, size in zip(times, sizes[:-1], strict=False))


def growth(tally, *, quick=False, only=()):
    """Measure every shape, up to 1 MB, or up to 100 kB if ``quick``."""
    sizes = SIZES[:2] if quick else SIZES
    start = started()
    steepest, slowest, largest = 0.0, 0.0, 0
    for shape in SHAPES:
        if only and not any(word in shape.name for word in only):
            continue
        began = time.perf_counter()
        costs = measured(shape, sizes)
        wrong = problem(costs, sizes, start)
        tally.case(shape.name, wrong)
        tally.slowest = max(tally.slowest, time.perf_counter() - began)
        steepest = max(steepest, exponent(costs, sizes[: len(costs)], start) if len(costs) > 1 else 0.0)
        slowest, largest = max(slowest, costs[-1].seconds), max(largest, costs[-1].megabytes)
        if only or os.environ.get("GROWTH_SHOWN"):
            print(f"  {shape.name}: " + ", ".join(f"{one.seconds:.2f} s {one.megabytes} MB" for one in costs), flush=True)
    tally.notes.append(f"steepest {steepest:.2f}, slowest {slowest:.2f} s, largest {largest} MB at {sizes[-1]:,} bytes")


def grow_apart(tally, *, quick):
    """Measure every shape from a new interpreter: Linux counts the memory of a forking process to its child's peak."""
    with tempfile.TemporaryDirectory() as place:
        record = Path(place, "record.json")
        further = ["--quick"] if quick else []
        subprocess.run([sys.executable, "-m", __name__, "--json", record, *further], check=False)
        found = json.loads(record.read_text())
    tally.tried, tally.lost, tally.notes, tally.slowest = (found[key] for key in ("tried", "lost", "notes", "slowest"))


def main():
    from benchmarks.robustness.trials import Tally

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json", type=Path, help="write the counts there too")
    options = parser.parse_args()
    signal.signal(signal.SIGXCPU, signal.SIG_DFL)
    tally = Tally("growth", "growth by shape")
    growth(tally, quick=options.quick, only=options.names)
    print(f"{tally.tried} tried, {len(tally.lost)} lost; {tally.notes[-1]}")
    if options.json:
        options.json.write_text(json.dumps(tally.record()))
    return bool(tally.lost)


if __name__ == "__main__":
    sys.exit(main())
