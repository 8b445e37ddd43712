"""Real training steps of every architecture that can be built tiny, after every preparation.

    python -m benchmarks.truth.real_steps [--out FILE] [--task TASK] [--only TYPE] [--sample N --seed S] [--redo] [--jobs N]
                                          [--device cuda --jobs 0]

Each model is built with random weights, saved, and loaded in nf4 on ``--device`` through ``from_pretrained``. It is prepared,
gets LoRA on every quantized layer, and is trained for one step. The result is one JSON line per (task, model type,
preparation) in ``--out``. Results that the file already has are not measured again.

The losses of detection and segmentation models match boxes and masks with scipy. Without it they raise ImportError, here and in
the trace, so install it to compare what follows (``pip install scipy``).

A process that uses CUDA cannot fork, so a GPU needs ``--jobs 0``, which runs one model after another in this process.
"""

from __future__ import annotations

import argparse
import collections
import copy
import functools
import json
import multiprocessing
import multiprocessing.connection
import os
import random
import re
import resource
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
import transformers
from torch import Tensor, nn

from benchmarks.truth.architectures import GROUPS, TASKS, architectures, build, tasks_of
from benchmarks.truth.preparations import PREPARATIONS, Preparation, experts_in, quantization, with_lora
from kbitlint.errors import KbitlintError
from kbitlint.model.batch import loss_of, training_batch
from kbitlint.model.inputs.plan import DOCUMENTED, Plan
from kbitlint.model.layers import checkpointing
from kbitlint.model.trace.fitting import plan_for

SEED = 0
#: the key of the line with the outcome of building and loading the model
BUILD = "build"
#: error kind -> pattern of its messages; the first match wins
_KINDS = {
    "no-checkpointing": r"does not support (gradient|activation) checkpointing",
    "no-grad": r"does not require grad",
    # the bytes of a packed weight, which lie in one column, where a matrix of numbers is expected
    "packed": r"unsigned char|'Byte'|ByteTensor|uint8|Got Byte|cannot be multiplied \(\d+x\d+ and (1x\d+|\d+x1)\)",
    "dtype": r"not implemented for '(BFloat16|Half)'|"
    r"dtype|scalar type|Input type .* and (bias|weight) type|result type .* can't be cast|without overflow",
}

Key = tuple[str, str, str]
Work = Callable[[str, str, list[str], Path], None]


def load(folder: str | Path, device: str = "cpu") -> tuple[Any, list[str]]:
    """Load the checkpoint of a folder in nf4 on a device; return (the model, the tensors that the loader did not find)."""
    config = transformers.AutoConfig.from_pretrained(folder)
    cls = getattr(transformers, config.architectures[0])
    transformers.set_seed(SEED)  # for tensors that no checkpoint stores
    model, found = cls.from_pretrained(
        folder,
        config=config,
        dtype=torch.bfloat16,
        device_map={"": device},
        quantization_config=quantization(),
        output_loading_info=True,
    )
    return model, sorted({*found["missing_keys"], *map(str, found["mismatched_keys"])})


def step_of(model: Any, preparation: Preparation) -> dict[str, Any]:
    """Prepare a freshly loaded model, attach adapters, train it for one step, and return the outcome."""
    stage, trained = "prepare", model
    made: dict[str, Any] = {"outcome": "ok", "error": None, "loss": None}
    try:
        transformers.set_seed(SEED)
        made["note"] = preparation.prepare(model)
        stage = "adapters"
        trained = with_lora(model)
        stage = "forward"
        batch = _batch(trained)
        loss = _forward(trained, batch, preparation)
        made["loss"] = float(loss.detach())
        stage = "backward"
        loss.backward()
        made |= _gradients(trained)
        stage = "bytes"
        made |= _saved_bytes(trained, batch, preparation)
    except Exception as error:  # noqa: BLE001  # the error is the result
        made |= {"outcome": "error", "error": _described(error, stage, trained)}
    return made


def _batch(model: Any) -> dict[str, Any]:
    """Return the batch of all steps. It is made once, as a first step may change the dtypes to which a batch is fitted."""
    model.train()
    device = next(model.parameters()).device
    plan = _plan(model, device.type)
    transformers.set_seed(SEED)
    return training_batch(model, device, plan=plan)


def _forward(model: Any, batch: dict[str, Any], preparation: Preparation) -> Tensor:
    device = next(model.parameters()).device
    transformers.set_seed(SEED)  # a trace draws the same batch, but not the same random numbers after it
    with torch.autocast(device.type, torch.bfloat16) if preparation.autocast else nullcontext():
        return loss_of(model(**copy.deepcopy(batch)))


def _plan(model: Any, device: str) -> Plan:
    """Return the plan of the batch on which a trace runs: the documented batch, or a corrected one."""
    try:
        return plan_for(model, device) or DOCUMENTED
    except KbitlintError:
        return DOCUMENTED


def _gradients(model: nn.Module) -> dict[str, list[str]]:
    """Return the trainable parameters with a gradient, without one, with zeros only, and with values not finite."""
    found: dict[str, list[str]] = {name: [] for name in ("with_gradient", "without_gradient", "zero", "not_finite")}
    for name, parameter in sorted(model.named_parameters()):
        if not parameter.requires_grad:
            continue
        found["without_gradient" if parameter.grad is None else "with_gradient"].append(name)
        if parameter.grad is not None and not parameter.grad.isfinite().all():
            found["not_finite"].append(name)
        elif parameter.grad is not None and not parameter.grad.any():
            found["zero"].append(name)
    return found


def _saved_bytes(model: Any, batch: dict[str, Any], preparation: Preparation) -> dict[str, int]:
    """Return the bytes that one more forward pass keeps for backward, with and without the model's own storages.

    Each storage counts once. The training step itself runs without these hooks, because they turn off autograd's check
    for tensors changed in place.
    """
    own = {tensor.untyped_storage().data_ptr() for tensor in (*model.parameters(), *model.buffers())}
    kept: dict[int, torch.UntypedStorage] = {}  # kept alive, so that no address is used twice

    def pack(tensor: Tensor) -> Tensor:
        kept.setdefault(tensor.untyped_storage().data_ptr(), tensor.untyped_storage())
        return tensor.detach()

    model.zero_grad(set_to_none=True)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        _forward(model, batch, preparation)
    sizes = {address: storage.nbytes() for address, storage in kept.items()}
    return {
        "saved_bytes": sum(size for address, size in sizes.items() if address not in own),
        "saved_bytes_with_weights": sum(sizes.values()),
    }


def kind_of(message: str) -> str:
    """Return the kind of failure of an error message."""
    return next((kind for kind, pattern in _KINDS.items() if re.search(pattern, message)), "other")


def _described(error: BaseException, stage: str, model: Any) -> dict[str, Any]:
    """Return an error as data: its kind, its innermost module, and the last lines of its traceback."""
    names = {module: name for name, module in model.named_modules()}
    text = str(error)
    module, places = "", []
    for frame, line in traceback.walk_tb(error.__traceback__):
        owner = frame.f_locals.get("self")
        if isinstance(owner, nn.Module) and owner in names:
            module = names[owner]
        places.append(f"{Path(frame.f_code.co_filename).name}:{line}:{frame.f_code.co_name}")
    return {
        "kind": kind_of(text),
        "type": type(error).__name__,
        "message": text[:500],
        "stage": stage,
        "module": re.sub(r"^base_model\.model(\.|$)", "", module),
        "at": places[-8:],
    }


def run_model(task: str, model_type: str, wanted: list[str], out: Path, device: str = "cpu") -> None:
    """Write the outcome of every wanted preparation of one model, each as soon as it is known."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    with tempfile.TemporaryDirectory() as folder:
        start, model = time.perf_counter(), None
        try:
            made = build(task, model_type)
            made.save_pretrained(folder)
            model, missing = load(folder, device)
            if missing:
                raise ValueError(f"the loader does not find {missing} in what the class itself saved")  # noqa: TRY301
            line = {"outcome": "ok", "error": None, **_facts(model)}
        except Exception as error:  # noqa: BLE001  # an architecture that cannot be built is a result
            line, model = {"outcome": "error", "error": _described(error, BUILD, nn.Module())}, None
        write(out, (task, model_type, BUILD), line, start)
        for name in wanted if model is not None else ():
            preparation = PREPARATIONS[name]
            if preparation.applies_to(model):
                start = time.perf_counter()
                write(out, (task, model_type, name), step_of(load(folder, device)[0], preparation), start)


def _facts(model: Any) -> dict[str, Any]:
    from benchmarks.truth.preparations import bitsandbytes

    odd = [name for name, tensor in model.named_parameters() if tensor.is_floating_point() and not tensor.isfinite().all()]
    return {
        "class": type(model).__name__,
        "supports_checkpointing": checkpointing.supports_checkpointing(model),
        "experts": experts_in(model),
        "main_input": model.main_input_name,
        "quantized": sum(isinstance(module, bitsandbytes.nn.Linear4bit) for module in model.modules()),
        "parameters_not_finite": odd,
    }


def write(out: Path, key: Key, line: dict[str, Any], start: float) -> None:
    """Append one result, with the seconds since ``start``, a value of ``time.perf_counter``."""
    named = dict(zip(("task", "model_type", "preparation"), key, strict=True))
    with out.open("a") as file:
        file.write(json.dumps({**named, **line, "seconds": round(time.perf_counter() - start, 2)}) + "\n")


@dataclass
class Job:
    """A process that runs one model."""

    task: str
    model_type: str
    wanted: list[str]
    process: multiprocessing.process.BaseProcess
    deadline: float


def results(out: Path) -> dict[Key, dict[str, Any]]:
    """Return the last line for each key of a results file."""
    found: dict[Key, dict[str, Any]] = {}
    if out.exists():
        for text in out.read_text().splitlines():
            line = json.loads(text)
            found[line["task"], line["model_type"], line["preparation"]] = line
    return found


def pairs(task: str | None, only: list[str], sample: int | None, seed: int) -> list[tuple[str, str]]:
    """Return the chosen (task, model type) pairs, or a random sample of them."""
    wanted = [
        (name, model_type) for name in tasks_of(task) for model_type in architectures(name) if not only or model_type in only
    ]
    if sample is None or sample >= len(wanted):
        return wanted
    return sorted(random.Random(seed).sample(wanted, sample))  # noqa: S311  # a sample, not a secret


def run_jobs(todo: list[tuple[str, str, list[str]]], work: Work, options: argparse.Namespace) -> None:
    """Call ``work`` for each (task, model type, preparations), each in a process with limits on time and memory.

    Without jobs, call it in this process and without limits.
    """
    _import_everything()
    todo = list(todo)
    if not options.jobs:
        started = time.perf_counter()
        for done, (task, model_type, wanted) in enumerate(todo, 1):
            work(task, model_type, wanted, options.out)
            _progress(done, len(todo), started, f"{task} {model_type}")
        return
    context = multiprocessing.get_context("fork")  # so that the libraries are imported once, and not for each model
    running: list[Job] = []
    total, started = len(todo), time.perf_counter()
    while todo or running:
        while todo and len(running) < options.jobs:
            task, model_type, wanted = todo.pop(0)
            process = context.Process(target=_limited, args=(work, options.memory, task, model_type, wanted, options.out))
            process.start()
            running.append(Job(task, model_type, wanted, process, time.monotonic() + options.timeout))
        multiprocessing.connection.wait([job.process.sentinel for job in running], timeout=1)
        for job in [job for job in running if not job.process.is_alive() or time.monotonic() > job.deadline]:
            running.remove(job)
            _finish(job, options.out)
            _progress(total - len(todo) - len(running), total, started, f"{job.task} {job.model_type}")


def _missing(known: dict[Key, dict[str, Any]], task: str, model_type: str) -> list[str]:
    """Return the preparations of a model that have no result.

    The list is empty if the model cannot be built. Preparations that do not apply are left out.
    """
    built = known.get((task, model_type, BUILD))
    if built is None:
        return list(PREPARATIONS)
    if built["outcome"] != "ok":
        return []
    applies = {"checkpoints": built["supports_checkpointing"], "experts": built.get("experts", 0)}
    return [name for name, one in PREPARATIONS.items() if (task, model_type, name) not in known and one.applies(**applies)]


def _import_everything() -> None:
    import peft  # noqa: F401

    from kbitlint import api, registry  # noqa: F401

    registry.select((), ())


def _limited(work: Work, gigabytes: int, task: str, model_type: str, wanted: list[str], out: Path) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (gigabytes << 30, gigabytes << 30))
    sys.stdout = sys.stderr = Path(os.devnull).open("w")  # noqa: SIM115  # open for as long as the process lives
    work(task, model_type, wanted, out)


def _finish(job: Job, out: Path) -> None:
    """Kill a process that is late. Write an error for the preparation at which a process died or was killed."""
    overtime = job.process.is_alive()
    if overtime:
        job.process.kill()
    job.process.join()
    if not overtime and job.process.exitcode == 0:
        return
    known = results(out)
    at = next((name for name in (BUILD, *job.wanted) if (job.task, job.model_type, name) not in known), None)
    if at is not None:
        what = "timeout" if overtime else f"exit code {job.process.exitcode}"
        error = {"kind": "other", "type": "Killed", "message": what, "stage": "process", "module": "", "at": []}
        write(out, (job.task, job.model_type, at), {"outcome": "error", "error": error}, time.perf_counter())


def _progress(done: int, total: int, started: float, what: str) -> None:
    elapsed = time.perf_counter() - started
    left = elapsed / done * (total - done)
    print(f"{done}/{total} {what}  {elapsed:.0f} s, {left / 60:.0f} min left", file=sys.stderr, flush=True)


def table(lines: dict[Key, dict[str, Any]], wanted: list[tuple[str, str]]) -> str:
    """Return a table of how often each preparation trains, and of the kinds of failure."""
    columns = ("all gradients", "some", "none", "dtype", "no-grad", "no-checkpointing", "other")
    counts: dict[str, collections.Counter[str]] = {name: collections.Counter() for name in (BUILD, *PREPARATIONS)}
    chosen = set(wanted)
    for (task, model_type, name), line in lines.items():
        if (task, model_type) in chosen and name in counts:
            counts[name][_column(name, line)] += 1
    width = max(map(len, counts))
    rows = [f"{'':<{width}}{'n':>5}" + "".join(f"{column:>{len(column) + 2}}" for column in columns)]
    rows += [
        f"{name:<{width}}{sum(count.values()):>5}" + "".join(f"{count[column]:>{len(column) + 2}}" for column in columns)
        for name, count in counts.items()
    ]
    return "\n".join(rows)


def _column(name: str, line: dict[str, Any]) -> str:
    if line["outcome"] == "error":
        return str(line["error"]["kind"])
    if name == BUILD or not line["without_gradient"]:
        return "all gradients"
    return "some" if line["with_gradient"] else "none"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[1] / "truth.jsonl", help="the results file")
    parser.add_argument("--task", choices=(*GROUPS, *TASKS), help="one task only, or the tasks of a group")
    parser.add_argument("--only", action="append", default=[], metavar="TYPE", help="this model type only; repeatable")
    parser.add_argument("--sample", type=int, metavar="N", help="this many architectures, drawn at random")
    parser.add_argument("--seed", type=int, default=0, help="seed of the sample")
    parser.add_argument("--redo", action="store_true", help="run again what the results file has already")
    parser.add_argument("--jobs", type=int, default=1, help="models at a time; 0 for one after another in this process")
    parser.add_argument("--device", default="cpu", help="where the steps run; a GPU needs --jobs 0")
    parser.add_argument("--timeout", type=float, default=180, help="seconds for one model")
    parser.add_argument("--memory", type=int, default=12, help="gigabytes of address space for one model")
    options = parser.parse_args()
    if options.device != "cpu" and options.jobs:
        parser.error(f"--device {options.device} needs --jobs 0: a process that uses CUDA cannot fork")
    wanted = pairs(options.task, options.only, options.sample, options.seed)
    known = {} if options.redo else results(options.out)
    todo = [(task, model_type, missing) for task, model_type in wanted if (missing := _missing(known, task, model_type))]
    run_jobs(todo, functools.partial(run_model, device=options.device), options)
    print(table(results(options.out), wanted))
    return 0


if __name__ == "__main__":
    sys.exit(main())
