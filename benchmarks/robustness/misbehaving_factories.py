"""Factories that fork, print, exit, recurse, hang, die and eat memory."""

from __future__ import annotations

import json
import os
import re
import signal
from pathlib import Path
from typing import Any

from benchmarks.robustness.malicious_inputs import room
from benchmarks.robustness.trials import Run, Tally, alone, run

FACTORIES = """
import atexit, ctypes, gc, multiprocessing, os, signal, subprocess, sys, threading, time
import tiny
READY = tiny.load()

def good():
    return READY
def prints():
    print("{"); os.write(1, b"[1, 2"); subprocess.run(["echo", "}"]); sys.stdout.write("x" * 100000); sys.__stdout__.flush()
    return READY
def prints_late():
    atexit.register(lambda: os.write(2, b"late\\n"))
    threading.Thread(target=lambda: [print("later", flush=True) or time.sleep(0.05) for _ in range(200)], daemon=True).start()
    return READY
def replaces_stdout():
    sys.stdout = open(os.devnull, "w"); sys.stdout.close(); sys.stderr = None
    return READY
def closes():
    os.close(1); os.close(0)
    return READY
def forks():
    if os.fork() == 0:
        print("child")
    return READY
def forks_and_raises():
    if os.fork() == 0:
        raise RuntimeError("in the child")
    return READY
def daemon_child():
    multiprocessing.get_context("fork").Process(target=time.sleep, args=(600,), daemon=True).start()
    return READY
def child():
    multiprocessing.get_context("fork").Process(target=time.sleep, args=(600,)).start()
    return READY
def pool():
    with multiprocessing.get_context("fork").Pool(2) as pool:
        pool.map(abs, range(10))
    return READY
def detached():
    subprocess.Popen(["sleep", "600"], start_new_session=True)
    return READY
def thread():
    threading.Thread(target=time.sleep, args=(600,)).start()
    return READY
def leaves(): sys.exit(0)
def leaves_with_text(): sys.exit("text")
def leaves_hard(): os._exit(0)
def recurses(): return recurses()
def recurses_deeply():
    sys.setrecursionlimit(10**9)
    return recurses()
def dies(): os.kill(os.getpid(), signal.SIGKILL)
def segfaults(): ctypes.string_at(0)
def aborts(): os.abort()
def interrupts(): os.kill(os.getpid(), signal.SIGINT); time.sleep(600)
def stops(): os.kill(os.getpid(), signal.SIGSTOP); time.sleep(600)
def ignores_signals():
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    time.sleep(600)
def hangs(): time.sleep(600)
def spins():
    while True: pass
def hangs_with_children():
    for _ in range(3):
        subprocess.Popen(["sleep", "601"])
    time.sleep(600)
def eats():
    kept = []
    while True:
        kept.append(bytearray(os.urandom(1)) * 5_000_000); time.sleep(0.0005)
def children_eat():
    code = "import time; kept = bytearray(b'1') * 500_000_000; time.sleep(600)"
    for _ in range(4):
        subprocess.Popen([sys.executable, "-c", code])
    time.sleep(600)
def forks_on():
    while True:
        if os.fork() == 0:
            time.sleep(600)
        time.sleep(0.01)
def returns_none(): return None
def returns_itself(): return returns_itself
class Odd(Exception):
    def __str__(self): raise ValueError("no text")
def raises_odd(): raise Odd
def raises_group(): raise ExceptionGroup("many", [ValueError(1)]) if sys.version_info >= (3, 11) else ValueError
def raises_base(): raise BaseException("not an Exception")
def raises_generator_exit(): raise GeneratorExit
def memory_error(): raise MemoryError
def removes_folder():
    os.mkdir("gone"); os.chdir("gone"); os.rmdir("../gone"); return READY
def changes_folder():
    os.chdir("/"); return READY
def shadows():
    sys.modules.pop("kbitlint.api", None); sys.path.clear(); return READY
def breaks_json():
    import json; json.dumps = lambda *a, **k: "broken"; return READY
"""
#: factories that may end the process they run in; each is tried only in a process of its own
_ISOLATED = {
    "leaves_hard",
    "dies",
    "segfaults",
    "aborts",
    "stops",
    "hangs",
    "spins",
    "ignores_signals",
    "hangs_with_children",
    "eats",
    "children_eat",
    "forks_on",
    "recurses_deeply",
    "child",
    "thread",
    "breaks_json",
    "removes_folder",
    "interrupts",
    "raises_base",
    "raises_generator_exit",
}
_HANGING = {"hangs", "spins", "stops", "ignores_signals", "hangs_with_children", "forks_on"}


def _asleep() -> set[str]:
    """Return the ids of processes that factories have started and that still run."""
    found = set()
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            words = (entry / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if (words[:1] == [b"sleep"] and words[1:2] in ([b"600"], [b"601"])) or b"500_000_000" in b" ".join(words):
            found.add(entry.name)
    return found


def factories(tally: Tally, *, quick: bool) -> None:
    """Audit each factory and then a good one, each in its own process, with limits on time and memory.

    Factories that cannot end their process are also audited in the process of the command line.
    """
    every = [name for name in re.findall(r"^def (\w+)", FACTORIES, re.MULTILINE) if name != "good"]
    chosen = [name for name in every if not quick or name not in _HANGING or name in ("hangs", "forks_on")]
    with room("factories") as (target, _):
        (target / "f.py").write_text(FACTORIES)
        asleep = _asleep()
        targets = [place for name in chosen for place in (f"f.py:{name}", "f.py:good")]
        limits = ("--jobs", "2", "--target-timeout", "25", "--target-memory", "1.5GB")
        ended = alone(["check", *targets, *limits, "--no-trace", "--format", "json"], target, seconds=25.0 * len(targets))
        tally.case(
            "all of them, each in its own process", ended.problem, None if ended.code == 2 else f"left with {ended.code}"
        )
        found = _document(ended)
        good = sum(entry["target"] == "f.py:good" for entry in found["targets"])
        tally.case("the good one after each", None if good == len(chosen) else f"reported {good} times of {len(chosen)}")
        said = {entry["target"]: entry["error"] for entry in found["failures"]}
        reported = {entry["target"] for entry in found["targets"]}
        for name in chosen:
            place, expected = f"f.py:{name}", _EXPECTED.get(name)
            wrong = expected and expected not in said.get(place, "")
            tally.case(
                f"{name}, in its own process",
                f"says {said.get(place)!r}" if wrong else None,
                None if place in said or place in reported else "is in neither list",
            )
        left = _asleep() - asleep
        tally.case("what all of them started", f"left {len(left)} processes" if left else None)
        for name in sorted(set(chosen) - _ISOLATED):
            ended = tally.took(run(["check", f"f.py:{name}", "f.py:good", "--no-trace", "--format", "json"], target))
            tally.case(f"{name}, in one process", ended.problem, *_reported(name, ended))
        for process in _asleep() - asleep:  # without --jobs, kbitlint does not end what a factory has started
            os.kill(int(process), signal.SIGKILL)


#: factory -> a part of the error that its target must have
_EXPECTED = {
    **dict.fromkeys(("hangs", "spins", "stops", "ignores_signals", "hangs_with_children"), "--target-timeout"),
    "forks_on": "(--target-",
    **dict.fromkeys(("eats", "children_eat"), "--target-memory"),
    "leaves": "left the program with exit status 0",
    "leaves_hard": "ended with exit status 0 and no report",
    "dies": "was ended by SIGKILL",
    "segfaults": "was ended by SIGSEGV",
    "aborts": "was ended by SIGABRT",
    "recurses": "RecursionError",
    "memory_error": "MemoryError",
    "returns_none": "returned None",
}


def _document(ended: Run) -> dict[str, Any]:
    try:
        return dict(json.loads(ended.out))
    except (ValueError, TypeError):
        return {"targets": [], "failures": []}


def _reported(name: str, ended: Run) -> list[str | None]:
    """Return why the output is not one JSON report with the good target. None is no problem."""
    if ended.hung or name == "closes":
        return []
    try:
        targets = [target["target"] for target in json.loads(ended.out)["targets"]]
    except (ValueError, KeyError, TypeError):
        return [f"the output is not one report: {ended.out[:100]!r} {ended.err[-300:]!r}"]
    lost = None if "f.py:good" in targets else f"the good target is lost: {ended.err[-300:]!r}"
    return [lost, f"left with {ended.code}" if len(targets) < 2 and ended.code != 2 else None]
