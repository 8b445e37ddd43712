"""Verdicts on generated training scripts, compared with what the scripts do when they run.

    python -m benchmarks.truth.generated [--programs N] [--seed S] [--out FILE] [--shrink] [--show SEED] [--json FILE]

``benchmarks.truth.programs`` composes each script from a seed. A forked process runs it on a tiny random model, and holds three
verdicts against it: that of the script (source), that of the finished model and its traced step, and that of the Trainer. A
difference is shrunk to the fewest options that show it. Results that ``--out`` has are not measured again.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import functools
import io
import json
import multiprocessing
import multiprocessing.connection
import os
import sys
import tempfile
import time
import traceback
import warnings
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import peft  # noqa: F401  # imported once, before the processes fork
import torch
import transformers

import kbitlint
from benchmarks.goals import Goal, leave
from benchmarks.truth.programs import ARCHITECTURES, SIZES, STEPS, Program, drawn, plain, script
from kbitlint.context import TrainingContext

#: seconds after which a program is given up
TIMEOUT = 180
#: what a program does
TRAINS, PARTLY, NOTHING, FAILS, NOT_MADE = "trains", "trains in part", "trains nothing", "fails", "is not made"


@functools.cache
def checkpoint(family: str, layers: int, tied: bool) -> str:  # noqa: FBT001  # a key
    """Return the folder of a tiny random model, made once a process."""
    folder = tempfile.mkdtemp(prefix="kbitlint-generated-")
    config = transformers.AutoConfig.for_model(
        family, **SIZES, **ARCHITECTURES[family], num_hidden_layers=layers, tie_word_embeddings=tied
    )
    for name in ("bos_token_id", "eos_token_id"):
        setattr(config, name, 1)
    torch.manual_seed(0)
    transformers.AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).save_pretrained(folder)
    return folder


def outcome(program: Program) -> dict[str, Any]:
    """Run a program in this process, and return what it does and what kbitlint says of it."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    base = checkpoint(program["family"], int(program["layers"]), program["tied"] == "yes")
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        file = Path(folder) / "train.py"
        file.write_text(script(program, base, folder))
        line: dict[str, Any] = {"program": program, "source": _said(kbitlint.check(file)), "model": None}
        return line | _real(file, line)


def _real(file: Path, line: dict[str, Any]) -> dict[str, Any]:
    """Run a script up to its mark, audit what it made, run the rest, and return the outcome."""
    made, rest = file.read_text().split("# train\n")
    space: dict[str, Any] = {"__name__": "__main__"}
    try:
        exec(compile(made, str(file), "exec"), space)  # noqa: S102  # the benchmark wrote it
    except Exception as error:  # noqa: BLE001  # the error is the result
        return {"real": NOT_MADE, "error": _text(error)}
    before, last = rest, ""
    if "trainer.train()" in rest:
        before, last = rest.split("trainer.train()")[0], "trainer.train()"
    try:
        if last:
            exec(compile(before, str(file), "exec"), space)  # noqa: S102  # see above
            line["model"] = _said(kbitlint.check(space["trainer"]))
        else:
            autocast = "bfloat16" if "autocast" in rest else "float32"
            line["model"] = _said(kbitlint.check(space["model"], context=TrainingContext(autocast_dtype=autocast)))
        seen, values = _watch(space["model"])
        exec(compile(last or before, str(file), "exec"), space)  # noqa: S102  # see above
    except Exception as error:  # noqa: BLE001  # the error is the result
        return {"real": FAILS, "error": _text(error), "model": line["model"]}
    learns = [name for name in values if seen.get(name)]
    real = TRAINS if len(learns) == len(values) and values else PARTLY if learns else NOTHING
    return {"real": real, "error": "", "idle": [name for name in values if name not in learns][:3], "model": line["model"]}


def _watch(model: Any) -> tuple[dict[str, bool], dict[str, Any]]:
    """Return whether each trainable parameter has got a gradient that is not zero, filled by hooks, and the parameters."""
    seen: dict[str, bool] = {}
    trained = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}

    def note(name: str, gradient: torch.Tensor | None) -> None:
        seen[name] = seen.get(name, False) or (gradient is not None and bool(gradient.any()))

    for name, parameter in trained.items():
        parameter.register_hook(functools.partial(note, name))
    return seen, trained


def _said(report: Any) -> dict[str, Any]:
    return {
        "errors": sorted({f"{v.code} {v.message}" for v in report.violations if v.severity.value == "error"}),
        "untraced": [skip.reason for skip in report.skips if skip.surface.value == "trace" and not skip.code],
        "crashes": [crash.traceback for crash in report.crashes],
    }


def _text(error: BaseException) -> str:
    place = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]} [{Path(place.filename).name}:{place.lineno}]"


def difference(line: dict[str, Any]) -> str | None:
    """Return in what the verdicts are not what a program does, or None."""
    source, model, real = line["source"], line["model"], line["real"]
    for said in (source, model):
        if said and said["crashes"]:
            return "crash: " + said["crashes"][0].strip().splitlines()[-1]
    if real == TRAINS:
        for name, said in (("script", source), ("model", model)):
            if said and said["errors"]:
                return f"false error on the {name}: {said['errors'][0].split()[0]}"
    if real in (FAILS, NOTHING) and model and not model["errors"] and not _is_bare(line["program"]):
        return "skipped" if model["untraced"] else f"silent on the model: {real}"
    if real in (FAILS, NOTHING, NOT_MADE) and not source["errors"]:
        return f"silent on the script: {real}"
    return None


def _is_bare(program: Program) -> bool:
    """Return whether a program trains a model without adapters in a loop of its own. The model alone does not tell its end."""
    return (program["adapter"] == "none" or program["adapted"] == "merged and unloaded") and "trainer" not in program["loop"]


def forked(program: Program) -> dict[str, Any]:
    """Return the outcome of a program that runs in a process of its own, with a limit on its time."""
    checkpoint(program["family"], int(program["layers"]), program["tied"] == "yes")
    receive, send = multiprocessing.get_context("fork").Pipe(duplex=False)
    process = multiprocessing.get_context("fork").Process(target=_child, args=(program, send))
    process.start()
    line = receive.recv() if receive.poll(TIMEOUT) else None
    process.kill()
    process.join()
    return line or {"program": program, "source": None, "model": None, "real": "no answer", "error": ""}


def _child(program: Program, send: Any) -> None:
    sys.stderr = Path(os.devnull).open("w")  # noqa: SIM115  # open for as long as the process lives
    try:
        send.send(outcome(program))
    except Exception:  # noqa: BLE001  # a crash of kbitlint itself is a result
        said = {"errors": [], "untraced": [], "crashes": [traceback.format_exc()]}
        send.send({"program": program, "source": said, "model": None, "real": "crash", "error": ""})
    os._exit(0)  # without the end of the interpreter, which costs a second


def shrunk(line: dict[str, Any]) -> dict[str, Any]:
    """Return the line of the program with the fewest options that are not plain and the same difference."""
    kind = difference(line)
    for step in STEPS:
        if line["program"][step] == plain(step):
            continue
        smaller = forked(line["program"] | {step: plain(step)})
        if smaller["source"] is not None and difference(smaller) == kind:
            line = smaller
    return line


def odd(program: Program) -> dict[str, str]:
    """Return the options of a program that are not plain."""
    return {step: option for step, option in program.items() if option != plain(step)}


def goals(lines: list[dict[str, Any]]) -> list[Goal]:
    """Return the goals on a set of outcomes."""
    known = [line for line in lines if line["source"] is not None]
    trains = [line for line in known if line["real"] == TRAINS]
    broken = [line for line in known if line["real"] in (FAILS, NOTHING) and line["model"] and not _is_bare(line["program"])]
    wrong = [line for line in known if line["real"] in (FAILS, NOTHING, NOT_MADE)]
    false = [line for line in trains if "false" in (difference(line) or "")]
    told = [line for line in broken if line["model"]["errors"]]
    by_script = [line for line in wrong if line["source"]["errors"]]
    crashes = [line for line in lines if "crash" in (difference(line) or "" if line["source"] else "")]
    return [
        Goal(f"generated programs that train, with an error, of {len(lines):,}", len(false), 0, "", of=len(trains)),
        Goal("generated programs with a crash", len(crashes), 0, "", of=len(lines)),
        Goal("broken programs with an error on the model", len(told) / max(len(broken), 1), 0.97, "%", at_least=True),
        Goal("broken programs with an error on the script", len(by_script) / max(len(wrong), 1), 0.8, "%", at_least=True),
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--programs", type=int, default=200, help="how many, each of a seed of its own")
    parser.add_argument("--seed", type=int, default=0, help="the seed of the first")
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[1] / "generated.jsonl", help="the results file")
    parser.add_argument("--shrink", action="store_true", help="look for a smaller program with the same difference")
    parser.add_argument("--show", type=int, metavar="SEED", help="print the script of this seed and leave")
    parser.add_argument("--json", type=Path, help="also write the figures there")
    options = parser.parse_args()
    if options.show is not None:
        print(script(drawn(options.show), "base", "folder"))
        return 0
    lines = [json.loads(text) for text in options.out.read_text().splitlines()] if options.out.exists() else []
    done, started = {line["seed"] for line in lines}, time.perf_counter()
    for seed in range(options.seed, options.seed + options.programs):
        if seed in done:
            continue
        line = {"seed": seed} | forked(drawn(seed))
        if options.shrink and line["source"] and difference(line):
            line["smallest"] = odd(shrunk(line)["program"])
        lines.append(line)
        with options.out.open("a") as file:
            file.write(json.dumps(line) + "\n")
    counts = collections.Counter(line["real"] for line in lines)
    print(dict(counts), f"{time.perf_counter() - started:.0f} s")
    for line in lines:
        kind = difference(line) if line["source"] else "no answer"
        if kind:
            print(f"  {line['seed']}: {kind} | {line['error'][:160]} | {line.get('smallest', odd(line['program']))}")
    return leave(goals(lines), options.json)


if __name__ == "__main__":
    sys.exit(main())
