"""Every trainer of the installed TRL on nf4 and LoRA: the verdict beside real optimizer steps, in states that people bring.

    python -m benchmarks.truth.trainers [--only NAME ...] [--state NAME ...] [--rehearse] [--out FILE] [--json FILE]

Each state is a tiny model in a trainer, with a process of its own. kbitlint audits the trainer, and its callback audits it
once more when training begins; then the trainer takes two steps. A state agrees if an error is reported exactly where training
raises or leaves a trainable parameter as it is, and if the traced step reaches the parameters that move. ``--rehearse`` also
writes the ordinary state as a script and rehearses it. Results that ``--out`` has are not measured again.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import sys
import tempfile
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import peft
import torch
import transformers

import kbitlint
from benchmarks.goals import Goal, leave
from kbitlint.context import TrainingContext
from kbitlint.integrations.trainer import KbitlintCallback
from kbitlint.model.layers.norms import is_norm
from kbitlint.model.trace.trace import trace

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests" / "support"))  # its modules import each other by name
import tiny  # see above
import trl_trainers  # see above

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

#: seconds for one state, on a machine under load
TIMEOUT = 900
REHEARSED = "rehearsed"


def _family(name: str) -> str:
    return "llama (reward model)" if name == "RewardTrainer" else "llama"


def _loaded(name: str, kind: str = "nf4") -> Any:
    return tiny.load(_family(name), kind)


def _prepared(name: str) -> Any:
    return peft.prepare_model_for_kbit_training(_loaded(name), gradient_checkpointing_kwargs={"use_reentrant": False})


def _fixed(name: str) -> Any:
    model = _loaded(name)
    kbitlint.fix(model)
    return model


def _with_float32_norms(name: str) -> Any:
    model = _loaded(name)
    for module in model.modules():
        if is_norm(module):
            module.float()
    return model


def _cut(trainer: Any) -> None:
    """Cut off what lies below the last layer."""
    (layer,) = [module for path, module in trainer.model.named_modules() if path.endswith("layers.1")]
    layer.register_forward_pre_hook(lambda _, args, kwargs: (tuple(value.detach() for value in args), kwargs), with_kwargs=True)


def _freeze(trainer: Any) -> None:
    trainer.model.requires_grad_(requires_grad=False)


def _zero_scaling(trainer: Any) -> None:
    for module in trainer.model.modules():
        if isinstance(getattr(module, "scaling", None), dict):
            module.scaling = dict.fromkeys(module.scaling, 0.0)


#: state -> (the model before the trainer, arguments of its configuration, what is done to the trainer)
STATES: dict[str, tuple[Callable[[str], Any], dict[str, Any], Callable[[Any], None] | None]] = {
    "ordinary": (_loaded, {}, None),
    "cut": (_loaded, {"gradient_checkpointing": False}, _cut),
    "not bf16": (_loaded, {"bf16": False}, None),
    "prepared by PEFT": (_prepared, {}, None),
    "float32 norms, not bf16": (_with_float32_norms, {"bf16": False}, None),
    "fixed": (_fixed, {}, None),
    "reentrant": (_loaded, {"gradient_checkpointing_kwargs": {"use_reentrant": True}}, None),
    "not checkpointed": (_loaded, {"gradient_checkpointing": False}, None),
    "frozen": (_loaded, {}, _freeze),
    "no scaling": (_loaded, {}, _zero_scaling),
    "int8": (lambda name: _loaded(name, "int8"), {}, None),
}


def state_of(name: str, state: str, folder: Path) -> dict[str, Any]:
    """Return the real steps of a trainer in a state, and the verdicts on it."""
    load, options, change = STATES[state]
    callback = KbitlintCallback(fail_on="never")
    line: dict[str, Any] = {"trainer": name, "state": state, "built": None}
    try:
        trainer = trl_trainers.build(name, folder, model=load(name), callbacks=[callback], **options)
        if change is not None:
            change(trainer)
    except Exception as error:  # noqa: BLE001  # what cannot be built is a result
        return line | {"built": _text(error)}
    line["said"] = _said(kbitlint.check(trainer))
    line |= _traced(trainer)
    line |= _trained(trainer)
    line["begun"] = _said(callback.report) if callback.report is not None else None
    return line


def _text(error: BaseException) -> str:
    return f"{type(error).__name__}: {str(error)[:300]}"


def _said(report: Any) -> dict[str, Any]:
    return {
        "violations": sorted({(v.code, v.severity.value, v.message) for v in report.violations}),
        "skips": [skip.reason for skip in report.skips if skip.surface.value == "trace" and not skip.code],
        "crashes": [crash.traceback for crash in report.crashes],
    }


def _traced(trainer: Any) -> dict[str, Any]:
    try:
        traced = trace(trainer.model, TrainingContext.from_trainer(trainer))
    except Exception as error:  # noqa: BLE001  # no trace is a result
        return {"reached": None, "failure": _text(error)}
    moving = sorted(gradient.path for gradient in traced.gradients if gradient.arrives and not gradient.zeroed_by)
    return {"reached": moving, "failure": traced.failure}


def _trained(trainer: Any) -> dict[str, Any]:
    """Train, and return the error, or the trainable parameters that the steps change and those that they leave as they are."""
    trainable = {name: parameter for name, parameter in trainer.model.named_parameters() if parameter.requires_grad}
    before = {name: parameter.detach().clone() for name, parameter in trainable.items()}
    try:
        trainer.train()
    except Exception as error:  # noqa: BLE001  # the error is the result
        return {"error": _text(error), "moved": [], "kept": []}
    same = {name: torch.equal(parameter, before[name]) for name, parameter in trainable.items()}
    paths = {name: name.removeprefix("base_model.model.") for name in same}
    return {
        "error": None,
        "moved": sorted(paths[name] for name in same if not same[name]),
        "kept": sorted(paths[name] for name in same if same[name]),
    }


def differences(line: dict[str, Any]) -> Iterator[str]:
    """Yield in what the verdicts on a state are not the outcome of its steps."""
    if line["built"] is not None:
        return
    trains = line["error"] is None and line["moved"] and not line["kept"]
    for when in ("said", "begun", REHEARSED):
        report = line.get(when)
        if report is None:
            continue
        errors = [violation for violation in report["violations"] if violation[1] == "error"]
        if trains and errors:
            yield f"{when}: false error {errors[0]}"
        if not trains and not errors:
            kept = f"{len(line['kept'])} of {len(line['kept'] + line['moved'])} kept"
            yield f"{when}: silent, {line['error'] or kept}"
        if report["crashes"]:
            yield f"{when}: crash {report['crashes'][0][-200:]}"
        if report["skips"]:
            yield f"{when}: not traced, {report['skips'][0][:200]}"
    if line["moved"] and line["reached"] is not None and line["reached"] != line["moved"]:
        yield f"the trace reaches {len(line['reached'])} parameters, and {len(line['moved'])} move"


def rehearsed(name: str) -> dict[str, Any]:
    """Return the verdict of a rehearsal of the ordinary state of a trainer, as a script."""
    from benchmarks.truth.rehearsed import server  # a process of its own, which is started only here
    from benchmarks.truth.trainer_scripts import place

    before = Path.cwd()
    with tempfile.TemporaryDirectory(prefix="kbitlint-trainer-") as folder:
        place(name, Path(folder), _family(name))
        os.chdir(folder)
        try:
            reports = server().reports(folder)
        finally:
            os.chdir(before)
    said = [_said(report) for report in reports]
    reached = any(note.startswith("training reached") for report in reports for note in report.notes)
    stops = [skip.reason for report in reports for skip in report.skips if not skip.code]
    return {key: [item for one in said for item in one[key]] for key in said[0]} | {"skips": [] if reached else stops[:3]}


def _in_process(name: str, state: str, out: Path) -> None:
    """Measure a state in a process of its own: accelerate keeps the precision of the first trainer of a process."""
    process = multiprocessing.get_context("fork").Process(target=_measure, args=(name, state, out))
    process.start()
    process.join(TIMEOUT)
    if process.is_alive():
        process.kill()
        process.join()
    if process.exitcode:
        _write(out, {"trainer": name, "state": state, "built": f"the process ended with {process.exitcode}"})


def _measure(name: str, state: str, out: Path) -> None:
    torch.set_num_threads(1)
    sys.stdout = sys.stderr = Path(os.devnull).open("w")  # noqa: SIM115  # open for as long as the process lives
    with tempfile.TemporaryDirectory() as folder:
        _write(out, state_of(name, state, Path(folder)))


def _write(out: Path, line: dict[str, Any]) -> None:
    with out.open("a") as file:
        file.write(json.dumps(line) + "\n")


def goals(lines: list[dict[str, Any]]) -> Iterator[Goal]:
    """Print every difference, and yield the goals."""
    found = [(line, what) for line in lines for what in differences(line)]
    for line, what in found:
        print(f"{line['trainer']:34} {line['state']:24} {what}")
    for line in lines:
        if line["built"] is not None:
            print(f"{line['trainer']:34} {line['state']:24} not built: {line['built'][:120]}")
    built = [line for line in lines if line["built"] is None]
    names = {line["trainer"] for line in built}
    wrong = {(line["trainer"], line["state"]) for line, _ in found}
    yield Goal(f"states of {len(names)} trainers judged otherwise than they train", len(wrong), 0, "", of=len(built))
    played = [line for line in built if REHEARSED in line]
    if played:
        missed = sum(bool(line[REHEARSED]["skips"] or line[REHEARSED]["crashes"]) for line in played)
        yield Goal("rehearsals of a trainer that do not reach its first step", missed, 0, "", of=len(played))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="*", default=list(trl_trainers.RECIPES))
    parser.add_argument("--state", nargs="*", default=list(STATES))
    parser.add_argument("--rehearse", action="store_true", help="rehearse the ordinary states as scripts, too")
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[1] / "trainers.jsonl")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    transformers.utils.logging.set_verbosity_error()
    trl_trainers.classes()
    known = {(line["trainer"], line["state"]): line for line in _lines(options.out)}
    for state in options.state:
        for name in options.only:
            if (name, state) not in known:
                _in_process(name, state, options.out)
    for line in _lines(options.out) if options.rehearse else ():
        if line["state"] == "ordinary" and line["built"] is None and REHEARSED not in line:
            _write(options.out, line | {REHEARSED: rehearsed(line["trainer"])})
    return leave(goals(_lines(options.out)), options.json)


def _lines(out: Path) -> list[dict[str, Any]]:
    """Return the last line of each trainer and state."""
    lines = map(json.loads, out.read_text().splitlines()) if out.exists() else ()
    return list({(line["trainer"], line["state"]): line for line in lines}.values())


if __name__ == "__main__":
    sys.exit(main())
