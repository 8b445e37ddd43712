"""Modules that reach a process of kbitlint, leftovers of stopped runs, and the exit code of each fault."""

from __future__ import annotations

import functools
import json
import os
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.robustness.trials import Run, Tally, run
from kbitlint.output import formats

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "tests" / "data" / "scripts" / "accelerate_loop_reentrant.py"
COMMAND = str(Path(sys.executable).with_name("kbitlint"))
MODULE = [sys.executable, "-m", "kbitlint"]
QUIET = {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "COLUMNS": "80"}


def _environment(**further: str) -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    return {**kept, "PYTHONDONTWRITEBYTECODE": "1", **QUIET, **further}


#: a program that records every module that kbitlint imports or tries to import, over all that its processes do
_RECORDER = """
import json, sys
asked = set()
class Recorder:
    @staticmethod
    def find_spec(name, path=None, target=None):
        asked.add(name.partition(".")[0])
sys.meta_path.insert(0, Recorder)
import kbitlint.cli, kbitlint.jobs.server, kbitlint.runtime.processes, kbitlint.audit.sources
if sys.argv[2:]:
    import kbitlint.jobs.preload
    for target in sys.argv[2:]:
        kbitlint.check(target, quantize="nf4")
else:
    kbitlint.check("train.py")
    from kbitlint import config, report
    from kbitlint.output import formats, text
names = asked | {name.partition(".")[0] for name in sys.modules}
json.dump(sorted(name for name in names if name.isidentifier()), open(sys.argv[1], "w"))
"""
#: modules that Python itself imports if it finds them in the working folder
_CUSTOM = ("sitecustomize", "usercustomize", "site", "os", "encodings", "__future__", "kbitlint", "kbitlint_rules", "runpy")


@functools.cache
def imported(*targets: str) -> tuple[str, ...]:
    """Return every top-level name that an audit of the targets imports or tries to import.

    Without targets, the audit is of a script.
    """
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "names.json"
        shutil.copy(SCRIPT, Path(folder) / "train.py")
        command = [sys.executable, "-W", "ignore", "-c", _RECORDER, str(place), *targets]
        subprocess.run(command, cwd=folder, check=True, env=_environment(), capture_output=True, timeout=300)
        return tuple(sorted({*json.loads(place.read_text()), *_CUSTOM} - {"__main__", "__mp_main__", "train"}))


def plant(folder: Path, names: tuple[str, ...]) -> Path:
    """Write a module of each name into a folder; return the file into which each writes its name if it runs."""
    canary = folder / "CANARY"
    for name in names:
        code = f"import os as _os\n_os.write(_os.open({str(canary)!r}, 1 | 64 | 1024, 438), {name + chr(10)!r}.encode())\n"
        if name == "os":
            code = code.replace("import os as _os", "import posix as _os")
        (folder / f"{name}.py").write_text(code)
    information = folder / "evil.egg-info"  # the metadata of a rule pack, which Python reads from each folder on sys.path
    information.mkdir()
    (information / "PKG-INFO").write_text("Metadata-Version: 2.1\nName: evil\nVersion: 1\n")
    (information / "entry_points.txt").write_text("[kbitlint.rules]\nevil = evil_rules\n")
    (folder / "evil_rules.py").write_text(f"open({str(canary)!r}, 'a').write('evil_rules\\n')\n")
    return canary


_FUNCTION = (
    "from transformers import LlamaConfig, LlamaForCausalLM\n"
    "def build():\n"
    "    return LlamaForCausalLM(LlamaConfig(hidden_size=32, intermediate_size=32, num_hidden_layers=1,\n"
    "        num_attention_heads=2, num_key_value_heads=2, vocab_size=64))\n"
)


def _situations(light: tuple[str, ...], heavy: tuple[str, ...], *, quick: bool):
    """Yield (name, command line, environment, canaries) of each run in folders with canaries."""
    later = tuple(name for name in heavy if name not in light)
    jobs = ("check", "train.py", "model", "--quantize", "nf4", "--jobs", "2")
    own = tuple(name for name in heavy if name not in _FOUND_BY_PYTHON)
    yield "--jobs", [COMMAND, *jobs], {}, heavy
    yield "python -m, --jobs", [*MODULE, "check", "train.py", "--jobs", "1"], {}, own
    yield "sweep", [COMMAND, "check", "many"], {}, heavy
    yield "--jobs, PYTHONPATH=.", [COMMAND, *jobs], {"PYTHONPATH": "."}, later
    if quick:
        return
    yield "python -m", [*MODULE, "check", "model", "train.py", "--quantize", "nf4"], {}, own
    yield "one process", [COMMAND, "check", "model", "train.py", "--quantize", "nf4"], {}, heavy
    yield "--target-timeout", [COMMAND, "check", "model", "--quantize", "nf4", "--target-timeout", "300"], {}, heavy
    yield "--target-memory", [COMMAND, "check", "train.py", "--target-memory", "8GB"], {}, heavy
    yield "a function elsewhere, --jobs", [COMMAND, "check", "elsewhere/f.py:build", "--jobs", "1"], {}, heavy
    yield "a function elsewhere", [COMMAND, "check", "elsewhere/f.py:build"], {}, heavy
    for value in (":", ".:", "{folder}", "many/.."):
        yield f"--jobs, PYTHONPATH={value}", [COMMAND, *jobs], {"PYTHONPATH": value}, later
        yield f"sweep, PYTHONPATH={value}", [COMMAND, "check", "many"], {"PYTHONPATH": value}, later
    startup = {"PYTHONSTARTUP": "evil_rules.py", "PYTHONWARNINGS": "error::evil_rules.X", "PYTHONINSPECT": "1"}
    yield "--jobs, PYTHONSTARTUP and others", [COMMAND, *jobs], startup, heavy


#: modules that `python -m kbitlint` imports from the working folder before kbitlint runs
_FOUND_BY_PYTHON = {"kbitlint"} | ({"runpy", "pkgutil"} if sys.version_info < (3, 11) else set())


def paths(tally: Tally, *, quick: bool) -> None:
    """Plant every module that kbitlint imports in the working folder and in the target's: none may run."""
    from tests.support import tiny

    light, heavy = imported(), imported(str(tiny.checkpoint()))
    for situation, command, environment, names in _situations(light, heavy, quick=quick):
        with tempfile.TemporaryDirectory() as place:
            folder = Path(place).resolve()
            canary = plant(folder, names)
            for name in ("many", "elsewhere"):
                (folder / name).mkdir()
            shutil.copy(SCRIPT, folder / "train.py")
            shutil.copytree(tiny.checkpoint(), folder / "model")
            for number in range(80):
                shutil.copy(SCRIPT, folder / "many" / f"m{number}.py")
            plant(folder / "many", names)
            (folder / "elsewhere" / "f.py").write_text(_FUNCTION)
            variables = {key: value.replace("{folder}", str(folder)) for key, value in environment.items()}
            done = subprocess.run(
                command, cwd=folder, env=_environment(**variables), capture_output=True, text=True, check=False, timeout=300
            )
            ran = {*_lines(canary), *_lines(folder / "many" / "CANARY")}
            fine = done.returncode in (0, 1)
            tally.case(f"{situation}: it works", None if fine else f"left with {done.returncode}: {done.stderr[-300:]}")
            for name in (*names, "evil_rules"):
                tally.case(f"{situation}: {name}.py", "was run" if name in ran else None)
    tally.notes.append(f"{len(heavy)} names are imported or tried by an audit of a checkpoint")


def _lines(file: Path) -> list[str]:
    return file.read_text().splitlines() if file.exists() else []


def stops(tally: Tally, count: int) -> None:
    """Stop sweeps and --jobs at random moments with each signal: no process and no open pipe may be left."""
    chance = random.Random(0)  # noqa: S311  # the same moments in each run
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place).resolve()
        (folder / "many").mkdir()
        for number in range(400):
            shutil.copy(SCRIPT, folder / "many" / f"m{number}.py")
        (folder / "f.py").write_text("import time\ndef build():\n    time.sleep(600)\n")
        sweep, jobs = ("check", "many"), ("check", "f.py:build", "f.py:build", "--jobs", "2")
        for number in range(count):
            kind = (signal.SIGTERM, signal.SIGKILL, signal.SIGINT)[number % 3]
            arguments, most = (jobs, 6.0) if number % 10 == 9 else (sweep, 1.6)
            after = chance.uniform(0, most)
            problem = stopped(folder, arguments, kind, after)
            tally.case(f"{' '.join(arguments)}, {kind.name} after {after:.2f} s", *problem)


def stopped(folder: Path, arguments: tuple[str, ...], kind: signal.Signals, after: float, patience: float = 15) -> list[str]:
    """Stop a run after some seconds, and return what it leaves: a pipe open after ``patience`` seconds, processes."""
    process = subprocess.Popen(
        [COMMAND, *arguments],
        cwd=folder,
        env=_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    time.sleep(after)
    process.send_signal(kind)
    problems = []
    try:
        process.communicate(timeout=patience)  # until every holder of the pipe has closed it
    except subprocess.TimeoutExpired:
        problems.append("a process holds its output")
    deadline = time.monotonic() + patience / 3
    while (left := _inside(folder)) and time.monotonic() < deadline:
        time.sleep(0.02)
    for one in left:
        problems.append(f"process {one} is left")
        os.kill(one, signal.SIGKILL)
    process.kill()
    process.communicate()
    return problems


def _inside(folder: Path) -> list[int]:
    """Return the processes whose working folder this is, zombies excluded."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if (entry / "cwd").readlink() == folder and "Z" not in (entry / "stat").read_text().rpartition(")")[2].split()[:1]:
                found.append(int(entry.name))
        except OSError:
            continue
    return found


#: stage -> (module, function) that raises the exception
STAGES = {
    "configuration": ("kbitlint.config", "load"),
    "selection of rules": ("kbitlint.registry", "select"),
    "reading a script": ("kbitlint.source.documents", "read"),
    "audit": ("kbitlint.engine", "run"),
    "suppressions": ("kbitlint.cli.check", "apply_suppressions"),
    "rendering": ("kbitlint.output.formats", "render"),
    "writing the report": ("kbitlint.cli.check", "write_report"),
}
EXCEPTIONS = (
    MemoryError(),
    RecursionError("maximum recursion depth exceeded"),
    KeyboardInterrupt(),
    SystemExit(1),
    SystemExit("text"),
    GeneratorExit(),
    BaseException("odd"),
    EOFError(),
    ConnectionResetError(104, "Connection reset by peer"),
    BrokenPipeError(32, "Broken pipe"),
    OSError(28, "No space left on device"),
    TimeoutError("slow"),
    UnicodeEncodeError("utf-8", "\udcff", 0, 1, "surrogates not allowed"),
    AssertionError(),
    ImportError("x"),
    StopIteration(),
    ValueError("a\x1b[31mb\nsecond line"),
)


def _raising(stage: tuple[str, str], error: BaseException):
    def before() -> None:
        import importlib

        def fail(*_: object, **__: object) -> None:
            raise error

        setattr(importlib.import_module(stage[0]), stage[1], fail)

    return before


#: a line that bitsandbytes prints at import if the package kernels is not installed
_OF_OTHERS = "Failed to load CPU gemm_4bit_forward from kernels-community"


def judged(ended: Run, *codes: int) -> list[str | None]:
    """Return the faults of a run that must fail: another exit code, or not exactly one error line."""
    lines = [line for line in ended.err.split("\n") if line and not line.startswith(_OF_OTHERS)]
    return [
        "hung" if ended.hung else None,
        None if ended.code in codes else f"left with {ended.code}: {ended.err[-200:]!r}",
        f"says {ended.err[-300:]!r}" if len(lines) != 1 or not lines[0].startswith(("kbitlint: ", "Error: ")) else None,
        None if ended.err.isprintable() or all(line.isprintable() for line in lines) else "steers the terminal",
    ]


def exits(tally: Tally, *, quick: bool) -> None:
    """Cause every kind of fault: the exit code must be 2 with one line, or 130 for Ctrl-C."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place).resolve()
        shutil.copy(SCRIPT, folder / "t.py")
        (folder / "clean.py").write_text("x = 1\n")
        for stage, where in STAGES.items():
            for error in EXCEPTIONS:
                ended = tally.took(run(["check", "t.py"], folder, before=_raising(where, error)))
                code = 130 if isinstance(error, KeyboardInterrupt) else 2
                tally.case(f"{type(error).__name__} at {stage}", *judged(ended, code))
        _outputs(tally, folder)
        _names(tally, folder)
        _memory(tally, folder, quick=quick)
        _dead(tally, folder)
        _interrupted(tally, folder, 12 if quick else 150)


def _shell(line: str, folder: Path) -> Run:
    start = time.perf_counter()
    done = subprocess.run(
        ["/bin/bash", "-c", line, COMMAND], cwd=folder, env=_environment(), capture_output=True, check=False, timeout=120
    )
    texts = (text.decode("utf-8", "surrogateescape") for text in (done.stdout, done.stderr))
    return Run(done.returncode, *texts, time.perf_counter() - start)


#: commands whose streams are closed, full or without a reader
COMMANDS = ("check clean.py", "check t.py", "check t.py --format json", "rules", "explain KB101", "config", "--help")


def _outputs(tally: Tally, folder: Path) -> None:
    for command in COMMANDS:
        for name, redirected in (
            ("closed", f"$0 {command} >&-"),
            ("full", f"$0 {command} >/dev/full"),
            ("without a reader", f"set -o pipefail; $0 {command} | :; exit ${{PIPESTATUS[0]}}"),
        ):
            ended = _shell(redirected, folder)
            # all output may have been written before the reader exited
            raced = name == "without a reader" and ended.code in (0, 1) and not ended.err
            tally.case(f"{command}, output {name}", *([] if raced else judged(ended, 2)))
        for name, redirected, codes in (
            ("error stream closed", f"$0 {command} 2>&-", (0, 1)),
            ("input closed", f"$0 {command} <&-", (0, 1)),
            ("all closed", f"$0 {command} <&- >&- 2>&-", (2,)),
        ):
            ended = _shell(redirected, folder)
            wrong = None if ended.code in codes else f"left with {ended.code}: {ended.err[-200:]!r}"
            tally.case(f"{command}, {name}", wrong, f"says {ended.err!r}" if ended.err else None)
    ended = _shell("$0 check gone.py 2>/dev/full", folder)
    tally.case("an error line that cannot be written", None if ended.code == 2 else f"left with {ended.code}")


def _names(tally: Tally, folder: Path) -> None:
    odd = folder / "odd"
    (odd / os.fsdecode(b"d\xfe")).mkdir(parents=True)
    shutil.copy(SCRIPT, odd / os.fsdecode(b"\xff.py"))
    shutil.copy(SCRIPT, odd / os.fsdecode(b"d\xfe") / "x.py")
    for form in formats.NAMES:
        function = (b"\xff.py:f",) if form in ("text", "sarif") else ()  # torch is imported for it
        for target in (b".", b"\xff.py", b"d\xfe", b"gone\xfe.py", *function):
            there = target in (b".", b"\xff.py", b"d\xfe")
            start = time.perf_counter()
            done = subprocess.run(
                [COMMAND, "check", target, "--format", form], cwd=odd, env=_environment(), capture_output=True, check=False
            )
            ended = Run(done.returncode, "", done.stderr.decode("utf-8", "replace"), time.perf_counter() - start)
            found = [None if ended.code == 1 else f"left with {ended.code}: {ended.err[-200:]!r}"]
            problems = found if there else judged(ended, 2)
            tally.case(f"{target!r} as {form}", *problems, _unreadable(done.stdout, form))


def _unreadable(output: bytes, form: str) -> str | None:
    """Return why a report is not valid UTF-8 or JSON, or None if it is."""
    try:
        text = output.decode()
        if form in ("json", "sarif") and text:
            json.dumps(json.loads(text), ensure_ascii=False).encode()
    except ValueError as error:
        return f"is not UTF-8 or no JSON: {error}"
    return None


def _memory(tally: Tally, folder: Path, *, quick: bool) -> None:
    (folder / "large.py").write_text("# load_in_4bit\n" + "x = [1, 2, {'a': (3, 4)}]\n" * 60_000)
    for megabytes in (60, 100, 140, 220, 300)[:: 2 if quick else 1]:

        def limited(megabytes: int = megabytes) -> None:
            pages = int(Path("/proc/self/statm").read_text().split()[0])
            most = pages * resource.getpagesize() + megabytes * 2**20
            resource.setrlimit(resource.RLIMIT_AS, (most, most))

        ended = tally.took(run(["check", "large.py"], folder, before=limited))
        done = ended.code == 0 and not ended.err
        tally.case(f"{megabytes} MB for a script that needs more", *([] if done else judged(ended, 2)))


def _dead(tally: Tally, folder: Path) -> None:
    """Kill the server of --jobs, and a process of a sweep."""
    (folder / "f.py").write_text("import time\ndef build():\n    time.sleep(600)\n")
    (folder / "many").mkdir()
    for number in range(400):
        shutil.copy(SCRIPT, folder / "many" / f"m{number}.py")
    for arguments in (("check", "f.py:build", "--jobs", "1"), ("check", "many")):
        process = subprocess.Popen(
            [COMMAND, *arguments], cwd=folder, env=_environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        child, deadline = None, time.monotonic() + 60
        while child is None and process.poll() is None and time.monotonic() < deadline:
            children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
            child = int(children[0]) if children else None
        if child is not None:
            os.kill(child, signal.SIGKILL)
        out, err = process.communicate(timeout=60)
        ended = Run(process.returncode, out.decode(), err.decode(), 0.0)
        killed = None if "SIGKILL" in ended.err else f"says {ended.err!r}"
        tally.case(f"{' '.join(arguments)}, its process killed", *judged(ended, 2), killed)


#: a frame in kbitlint, outside the lines that install its Ctrl-C handler; an interrupt in `site` makes Python exit with 1
_OURS = re.compile(r"kbitlint/(?!__init__\.py|cli/__init__\.py|cli/interrupts\.py)")


def _interrupted(tally: Tally, folder: Path, count: int) -> None:
    """Send Ctrl-C at random moments: the run must exit with 130 and one line, or be complete.

    An interrupt before the first line of kbitlint belongs to Python, and is only counted.
    """
    chance = random.Random(1)  # noqa: S311
    early = 0
    for number in range(count):
        arguments, most = (
            (("check", "many"), 1.2),
            (("check", "clean.py"), 0.3),
            (("check", "f.py:build", "--target-timeout", "100"), 4.0),
            (("check", "f.py:build"), 4.0),
            (("rules",), 0.4),
        )[number % 5]
        after = chance.uniform(0, most)
        process = subprocess.Popen(
            [COMMAND, *arguments], cwd=folder, env=_environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        time.sleep(after)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
        ended = Run(process.returncode, out.decode(), err.decode(), after)
        started = "Traceback" not in ended.err and (ended.code != -signal.SIGINT or ended.err)
        if not (started or _OURS.search(ended.err)):
            early += 1  # the interpreter was still starting: Python may exit or go on
            tally.case("early")
            continue
        through = ended.code in (0, 1) and not ended.err
        tally.case(f"{' '.join(arguments)}, Ctrl-C after {after:.2f} s", *([] if through else judged(ended, 130)))
    tally.notes.append(f"{early} of {count} Ctrl-C came before a line of kbitlint was run")
