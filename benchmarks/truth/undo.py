"""The state of a model after a fix that is undone, and after a fix that fails halfway.

    python -m benchmarks.truth.undo [--out FILE] [--task TASK] [--only TYPE] [--sample N --seed S] [--jobs N] [--json FILE]

Every architecture is loaded in nf4 on the CPU, fixed with unsafe fixes too, and undone. Then the fix is stopped at each
of its edits in turn. The model must be the same each time: dtypes, values, storages, flags, hooks and their order,
classes, config. The exit code is 1 if it differs. ``benchmarks.robustness.run`` tests what a kill leaves of files.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import os
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
import transformers
from torch import Tensor, nn

import kbitlint
from benchmarks.goals import Goal, leave
from benchmarks.truth import real_steps
from benchmarks.truth.architectures import build
from kbitlint.model.edits import apply
from kbitlint.model.edits.journal import Journal, journaled

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

#: the third part of the key of a result, in place of the name of a preparation
UNDO = "undo"
_HOOKS = (
    "_forward_hooks",
    "_forward_hooks_with_kwargs",
    "_forward_hooks_always_called",
    "_forward_pre_hooks",
    "_forward_pre_hooks_with_kwargs",
    "_state_dict_hooks",
    "_load_state_dict_pre_hooks",
)


def state_of(model: nn.Module, moved: frozenset[str] = frozenset()) -> dict[str, Any]:
    """Return everything that a fix can change.

    The addresses of parameters in ``moved`` are left out, because undo creates these parameters again.
    """
    state: dict[str, Any] = {"config": model.config.to_json_string()}
    for path, module in model.named_modules():
        state[path, "module"] = (
            type(module),
            module.training,
            list(module._parameters),  # noqa: SLF001  # torch has no public dictionaries
            list(module._modules),  # noqa: SLF001  # see above
            [(kind, list(module.__dict__[kind].items())) for kind in _HOOKS],
            {name: repr(value) for name, value in vars(module).items() if _is_plain(value)},
            module.__dict__.get("_gradient_checkpointing_func"),
        )
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        place = None if name in moved else tensor.data_ptr()
        state[name, "tensor"] = (tensor.dtype, place, tensor.requires_grad, tuple(tensor.shape), _digest(tensor))
    return state


def _is_plain(value: Any) -> bool:
    return isinstance(value, (bool, int, float, str, torch.dtype, type(None)))


def _digest(tensor: Tensor) -> str:
    return hashlib.sha256(tensor.detach().contiguous().view(-1).view(torch.uint8).numpy().tobytes()).hexdigest()


def changed(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """Return the keys under which two states differ."""
    return sorted({str(key) for key in before.keys() | after.keys() if before.get(key) != after.get(key)})


class Stop(BaseException):
    """An interruption like Ctrl-C, which no ``except Exception`` catches."""


def run_model(task: str, model_type: str, _: list[str], out: Path) -> None:
    """Write the result of one architecture: undo after a fix, and a fix that is stopped at each of its edits."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        line: dict[str, Any]
        try:
            build(task, model_type).save_pretrained(folder)
            model = real_steps.load(folder)[0]
        except Exception as error:  # noqa: BLE001  # an architecture that cannot be built is a result
            line = {"outcome": "not built", "error": f"{type(error).__name__}: {error}"[:200]}
        else:
            line = undone(model)
    real_steps.write(out, (task, model_type, UNDO), line, start)


def undone(model: Any) -> dict[str, Any]:
    """Return what differs after undo, and after a fix that is stopped at each edit."""
    applied = kbitlint.plan(model, unsafe=True)
    moved = frozenset(edit.path for edit in applied if edit.kind in ("pack-experts", "narrow-parameter"))
    before = state_of(model, moved)
    made = kbitlint.fix(model, unsafe=True).applied
    same_plan = made is not None and made.edits == applied
    again = kbitlint.fix(model, unsafe=True).applied
    kbitlint.undo(model)
    after_undo = changed(before, state_of(model, moved))
    after_stop: dict[str, list[str]] = {}
    for index, edit in enumerate(applied):
        with contextlib.suppress(Stop), journaled(Journal()) as journal:
            apply.apply(model, applied[: index + 1], journal)
            raise Stop
        differs = changed(before, state_of(model, moved))
        if differs:
            after_stop[f"{index} {edit.kind} {edit.path}"] = differs[:5]
    fine = not (after_undo or after_stop) and same_plan and again is not None and not again.edits
    return {
        "outcome": "ok" if fine else "differs",
        "edits": len(applied),
        "packed": sum(edit.kind == "pack-experts" for edit in applied),
        "after_undo": after_undo[:10],
        "after_stop": after_stop,
        "plan_is_fix": same_plan,
        "second_fix": [f"{edit.kind} {edit.path}" for edit in (again.edits if again else ())],
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[1] / "undo.jsonl")
    parser.add_argument("--json", type=Path, help="also write the goals there")
    parser.add_argument("--task", choices=real_steps.TASKS)
    parser.add_argument("--only", action="append", default=[], metavar="TYPE")
    parser.add_argument("--sample", type=int)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--timeout", type=float, default=300)
    parser.add_argument("--memory", type=int, default=16, help="gigabytes of address space a process")
    options = parser.parse_args()
    wanted = real_steps.pairs(options.task, options.only, options.sample, options.seed)
    known = real_steps.results(options.out)
    real_steps.run_jobs([(*pair, [UNDO]) for pair in wanted if (*pair, UNDO) not in known], run_model, options)
    lines = {key: line for key, line in real_steps.results(options.out).items() if key[:2] in set(wanted)}
    counts: dict[str, int] = {}
    for key, line in sorted(lines.items()):
        counts[line["outcome"]] = counts.get(line["outcome"], 0) + 1
        if line["outcome"] not in ("ok", "not built"):
            print(*key[:2], {name: value for name, value in line.items() if name not in ("seconds", "task", "model_type")})
    print(counts)
    return leave(goals(lines.values()), options.json)


def goals(lines: Iterable[dict[str, Any]]) -> Iterator[Goal]:
    """Yield the goals: no model differs, no second fix changes one, and the plan lists the edits of the fix."""
    built = [line for line in lines if line["outcome"] != "not built"]
    edits = sum(line.get("edits", 0) for line in built)
    yield Goal(
        "models that differ after fix and undo", sum(bool(line.get("after_undo")) for line in built), 0, "", of=len(built)
    )
    stopped = sum(len(line.get("after_stop", ())) for line in built)
    yield Goal("models that differ after a fix that was stopped, once at each edit", stopped, 0, "", of=edits)
    again = sum(bool(line.get("second_fix", True)) for line in built)
    yield Goal("models that a second fix changes", again, 0, "", of=len(built))
    other = sum(not line.get("plan_is_fix", False) for line in built)
    yield Goal("models of which the plan is not what the fix does", other, 0, "", of=len(built))


if __name__ == "__main__":
    sys.exit(main())
