"""Verdicts of kbitlint on every architecture without weights, compared with the real steps.

    python -m benchmarks.truth.real_steps                         # real steps, once
    python -m benchmarks.truth.verdicts [--task TASK] [--only TYPE] [--redo] [--jobs N] [--device D] [--json FILE]

Each model is built on the meta device in the state in which ``real_steps.py`` trained it, and traced. A pair of
architecture and preparation agrees if the trace reaches the same trainable parameters, or finds the same kind of
failure. Every disagreement is printed. The exit code is 1 if a goal is missed.
"""

from __future__ import annotations

import argparse
import functools
import os
import re
import sys
import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
import transformers

from benchmarks.goals import Goal, leave
from benchmarks.truth import real_steps
from benchmarks.truth.architectures import GROUPS, TASKS, config_for, model_class, tasks_of
from benchmarks.truth.preparations import PREPARATIONS, Preparation, quantization, with_lora
from kbitlint import engine, registry
from kbitlint.context import TrainingContext
from kbitlint.model.build.meta import instantiate
from kbitlint.model.inspect.walk import collect
from kbitlint.model.trace.step import UntraceableError
from kbitlint.model.trace.trace import trace
from kbitlint.violation import Surface

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

GOAL = 0.995
#: what a kernel says of a weight without values
_HOLLOW = "Tensor on device meta is not on the expected device"
#: preparation -> its name in the goals
FIXES = {"kbitlint": "the fix", "kbitlint-unsafe": "the unsafe fix"}


def run_model(task: str, model_type: str, wanted: list[str], out: Path, device: str = "cpu") -> None:
    """Write every wanted verdict of one model, each as soon as it is known."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    transformers.utils.logging.set_verbosity_error()
    for name in wanted:
        start = time.perf_counter()
        real_steps.write(out, (task, model_type, name), _verdict(task, model_type, PREPARATIONS[name], device), start)


def _verdict(task: str, model_type: str, preparation: Preparation, device: str) -> dict[str, Any]:
    made: dict[str, Any] = {"verdict": "other", "message": "", "reached": [], "missing": [], "violations": []}
    context = TrainingContext(autocast_dtype="bfloat16" if preparation.autocast else "float32")
    try:
        model: Any = instantiate(model_class(task, model_type), config_for(task, model_type), quantization(), torch.bfloat16)
        preparation.prepare(model)
        with torch.device("meta"):
            adapted = with_lora(model)
    except Exception as error:  # noqa: BLE001  # the error of the preparation is the verdict
        return made | {"verdict": real_steps.kind_of(str(error)), "message": str(error)[:300], "stage": "prepare"}
    facts = {Surface.MODEL: collect(adapted)}
    try:
        traced = trace(adapted, context, device=device, facts=facts[Surface.MODEL])
    except UntraceableError as error:
        made |= {"verdict": "untraceable", "message": str(error)[:300]}
    else:
        facts[Surface.TRACE] = traced
        made |= {
            "verdict": "other"
            if any(layer.meta for layer in traced.replaced)  # a layer without weights is called, before anything else fails
            else "packed"
            if traced.packed_reads or any("uint8" in refusal.dtypes for refusal in traced.refusals)
            else "dtype"
            if traced.refusals
            else "no-grad"
            if _no_grad(traced)
            else "other"
            if traced.failure
            else "ok",
            "message": str(traced.refusals[:2] if traced.refusals else traced.failure or ""),
            "readers": sorted({read.reader for read in traced.packed_reads}),
            "hollow": sorted({layer.path for layer in traced.replaced if layer.meta}),
            "reached": sorted(gradient.path for gradient in traced.gradients if gradient.arrives),
            "missing": sorted([g.path, g.cut.name, g.at] for g in traced.gradients if g.cut is not None),
            "saved_bytes": traced.saved_bytes,
            "guesses": dict(traced.guesses),
        }
    outcome = engine.run(registry.select((), ()), facts, context)
    made["violations"] = sorted({(v.code, v.severity.value, v.message) for v in outcome.violations})
    made["crashes"] = [crash.traceback for crash in outcome.crashes]
    return made


def _no_grad(traced: Any) -> bool:
    return traced.failure is not None and "does not require grad" in traced.failure


def agrees(real: dict[str, Any], said: dict[str, Any]) -> bool:
    """Return whether the verdict is the outcome of the real step.

    A failure of no known kind agrees with one of the same message. One of code that reads packed bytes may have any message; it
    agrees if the trace names the module whose code reads them. So does the call of a layer that the loader left without
    values: the trace names the module that calls it, and runs on.
    """
    if real["outcome"] != "error":
        names = sorted(name.removeprefix("base_model.model.") for name in real["with_gradient"])
        return said["verdict"] == "ok" and names == said["reached"]
    error, verdict = real["error"], said["verdict"]
    kind = real_steps.kind_of(error["message"])
    if kind != "other":
        return bool(verdict == kind)
    if verdict == "packed":
        return error["module"] in said.get("readers", ())
    if verdict == "other" and _HOLLOW in error["message"]:
        return error["module"] in said.get("hollow", ())
    return bool(verdict == "other" and _alike(error["message"], said["message"]))


def _alike(real: str, traced: str) -> bool:
    """Return whether two messages are one, apart from their numbers and the name of the exception before them."""
    words, others = (re.sub(r"\d+", "0", " ".join(text.split())).lower()[:100] for text in (real, traced))
    return words in others.partition(": ")[2] or words[:80] == others[:80]


def is_skipped(real: dict[str, Any], said: dict[str, Any]) -> bool:
    """Return whether a state fails in a way that no kind names, and has a skip: neither equal nor different."""
    unknown = real["outcome"] == "error" and real_steps.kind_of(real["error"]["message"]) == "other"
    return unknown and said["verdict"] == "untraceable"


def report(real: dict[real_steps.Key, Any], said: dict[real_steps.Key, Any]) -> list[Goal]:
    """Print how often each preparation agrees, and every disagreement; return the goals.

    A process that ended early leaves a line without a verdict, and states that are not compared.
    """
    said = {key: line for key, line in said.items() if "verdict" in line}
    print(f"{sum(key not in said for key in real if key[2] != real_steps.BUILD)} states have no verdict")
    keys = [key for key in real if key in said and key[2] != real_steps.BUILD]
    skipped = [key for key in keys if is_skipped(real[key], said[key])]
    print(f"{len(skipped)} states that fail have a skip, and no trace to compare")
    keys = [key for key in keys if key not in set(skipped)]
    right = {key: agrees(real[key], said[key]) for key in keys}
    for name in PREPARATIONS:
        mine = [right[key] for key in keys if key[2] == name]
        if mine:
            print(f"{name:<38}{sum(mine):>5} of {len(mine):>4}  {sum(mine) / len(mine):7.2%}")
    share = sum(right.values()) / max(len(right), 1)
    for key in keys:
        if not right[key]:
            print("  differs:", *key, "|", _real(real[key]), "|", _said(said[key], real[key]))
    ratios = [said[k]["saved_bytes"] / real[k]["saved_bytes"] for k in keys if right[k] and real[k].get("saved_bytes")]
    if ratios:
        near = sum(abs(ratio - 1) <= 0.02 for ratio in ratios)
        far = [key for key in keys if right[key] and real[key].get("saved_bytes") and _far(said[key], real[key])]
        for key in far:
            print("  saved bytes:", *key, said[key]["saved_bytes"], "traced,", real[key]["saved_bytes"], "real")
        print(f"saved bytes within 2 %: {near} of {len(ratios)}, from {min(ratios):.3f} to {max(ratios):.3f}")
    trace = Goal(f"traced step = real step, {len(right):,} states of {_classes(keys)} classes", share, GOAL, "%", at_least=True)
    return [trace, *_alarms({key: real[key] for key in keys}, said), *_fixed({key: real[key] for key in keys})]


def _classes(keys: Iterable[real_steps.Key]) -> int:
    return len({key[:2] for key in keys})


def _far(said: dict[str, Any], real: dict[str, Any]) -> bool:
    return abs(said["saved_bytes"] / real["saved_bytes"] - 1) > 0.02


def _trains(key: real_steps.Key, real: dict[real_steps.Key, Any]) -> bool:
    """Return whether a model trains as well as it can: with as many gradients as after any preparation without reentry.

    Only adapters that this model has count, because PEFT attaches none to experts that are packed in place.
    """
    if real[key]["outcome"] != "ok":
        return False
    lines = [real[pair] for pair in real if pair[:2] == key[:2] and "reentrant" not in pair[2]]
    own = {*real[key]["with_gradient"], *real[key]["without_gradient"]}
    most = max((len(own.intersection(line["with_gradient"])) for line in lines if line["outcome"] == "ok"), default=0)
    return len(real[key]["with_gradient"]) >= most > 0


def _errors(line: dict[str, Any]) -> list[Any]:
    return [violation for violation in line["violations"] if violation[1] == "error"]


def false_alarms(real: dict[real_steps.Key, Any], said: dict[real_steps.Key, Any]) -> list[real_steps.Key]:
    """Return the states that train and get a violation of severity error."""
    return [key for key in real if key in said and _errors(said[key]) and _trains(key, real)]


def missed(real: dict[real_steps.Key, Any], said: dict[real_steps.Key, Any]) -> list[real_steps.Key]:
    """Return the states that fail, or train less than they can, without notice.

    An error, an untraceable step, and an exception while preparing count as notice.
    """
    told = {key for key in said if said[key]["verdict"] == "untraceable" or said[key].get("stage") == "prepare"}
    return [key for key in real if key in said and not _trains(key, real) and not _errors(said[key]) and key not in told]


def _alarms(real: dict[real_steps.Key, Any], said: dict[real_steps.Key, Any]) -> Iterator[Goal]:
    """Print errors on states that train, and broken states without an error; yield a goal for each."""
    false, silent = false_alarms(real, said), missed(real, said)
    broken = [key for key in real if key in said and not _trains(key, real)]
    for key in false:
        print("  error on a model that trains:", *key, "|", _errors(said[key])[:2])
    for key in silent:
        print("  no error on a model that fails:", *key, "|", _real(real[key]), "|", _said(said[key], real[key]))
    yield Goal("states that train, with an error", len(false), 0, "", of=len(real) - len(broken))
    yield Goal("states that fail or train less than they can, without a word", len(silent), 0, "", of=len(broken))


def _fixed(real: dict[real_steps.Key, Any]) -> Iterator[Goal]:
    """Yield a goal for each fix: it trains the classes that another preparation makes trainable."""
    theirs = {key[:2] for key in real if key[2] not in (real_steps.BUILD, *FIXES) and _trains(key, real)}
    for name, what in FIXES.items():
        keys = [(*key, name) for key in sorted(theirs) if (*key, name) in real]
        left = [key for key in keys if not _trains(key, real)]
        for key in left:
            print("  does not train:", *key, "|", _real(real[key]))
        yield Goal(f"trainable classes that do not train after {what}", len(left), 0, "", of=len(keys))


def _real(line: dict[str, Any]) -> str:
    if line["outcome"] == "error":
        return f"real {line['error']['kind']}: {line['error']['message'][:120]!r} in {line['error']['module']}"
    return f"real {len(line['with_gradient'])} with, {len(line['without_gradient'])} without gradient"


def _said(line: dict[str, Any], real: dict[str, Any]) -> str:
    text = f"trace {line['verdict']} {line['message'][:160]}"
    if line["verdict"] == "ok" and real["outcome"] == "ok":
        names = {name.removeprefix("base_model.model.") for name in real["with_gradient"]}
        text += f" only traced {sorted(set(line['reached']) - names)[:2]} only real {sorted(names - set(line['reached']))[:2]}"
    return text


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--real", type=Path, default=Path(__file__).parents[1] / "truth.jsonl", help="what real_steps wrote")
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[1] / "verdicts.jsonl", help="the verdicts")
    parser.add_argument("--json", type=Path, help="also write the goals there")
    parser.add_argument("--task", choices=(*GROUPS, *TASKS), help="one task only, or the tasks of a group")
    parser.add_argument("--only", action="append", default=[], metavar="TYPE", help="this model type only; repeatable")
    parser.add_argument("--redo", action="store_true", help="ask again for what the file has already")
    parser.add_argument("--jobs", type=int, default=1, help="models at a time")
    parser.add_argument("--device", default="cpu", help="the device on which the real steps ran")
    parser.add_argument("--timeout", type=float, default=180, help="seconds for one model")
    parser.add_argument("--memory", type=int, default=12, help="gigabytes of address space for one model")
    options = parser.parse_args()
    real = {
        key: line
        for key, line in real_steps.results(options.real).items()
        if key[0] in tasks_of(options.task) and (not options.only or key[1] in options.only)
    }
    known = {} if options.redo else real_steps.results(options.out)
    todo: dict[tuple[str, str], list[str]] = {}
    for task, model_type, name in real:
        if name != real_steps.BUILD and (task, model_type, name) not in known:
            todo.setdefault((task, model_type), []).append(name)
    work = functools.partial(run_model, device=options.device)
    real_steps.run_jobs([(task, model_type, names) for (task, model_type), names in todo.items()], work, options)
    return leave(report(real, real_steps.results(options.out)), options.json)


if __name__ == "__main__":
    sys.exit(main())
