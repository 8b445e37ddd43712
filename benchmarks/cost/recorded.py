"""The memory table against steps that a GPU ran: ``data/h200.json``, the output of ``cuda.py`` on an NVIDIA H200.

    python -m benchmarks.cost.recorded [--geometry NAME] [--json FILE]

Needs no GPU. Each recorded step is traced again under the same settings, and the peak is compared with
``torch.cuda.max_memory_allocated``. The exit code is 1 if a goal is missed.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
import transformers

import kbitlint
from benchmarks.cost.cuda import GEOMETRIES
from benchmarks.goals import Goal, leave
from kbitlint.audit.open import open_target, target_of
from kbitlint.audit.options import options_of
from kbitlint.audit.run import model_of
from kbitlint.fixes.budget import AS_IT_IS, PEFT, PREPARATIONS, prepared_twin
from kbitlint.fixes.lora import Lora
from kbitlint.memory_result import OFF, ON
from kbitlint.model.memory.step_memory import measure
from kbitlint.step_plan import Loss, StepPlan

FILE = Path(__file__).with_name("data") / "h200.json"
#: set-up -> why the table differs from the card. They are printed, and the goal leaves them out.
EXPLAINED = dict.fromkeys(
    ("quantize=int8", "quantize=int8, checkpointing=False"),
    "bitsandbytes copies columns with outliers: 98 % of each down_proj's input with random weights, few in a trained model",
)
#: the largest allowed deviation of one peak, and of their median, as a share
GOALS = {"farthest": 0.05, "median": 0.02}


def config_folder(geometry, place):
    """Write the config of a geometry, without weights, and return its folder."""
    family, sizes = GEOMETRIES[geometry]
    folder = Path(place) / geometry
    if not folder.exists():
        config = getattr(transformers, f"{family}Config")(**{"tie_word_embeddings": False, **sizes}, pad_token_id=0)
        config.architectures, config.dtype = [f"{family}ForCausalLM"], "bfloat16"
        config.save_pretrained(folder)
    return folder


def told(folder, step):
    """Return the peak that the table gives for a recorded step, in bytes."""
    model = model_of(open_target(target_of(str(folder)), options_of({"quantize": step["quantize"]})).live)
    dtype = "bfloat16" if step["autocast"] else "float32"
    context = kbitlint.TrainingContext(autocast_dtype=dtype, batch_size=step["batch"], seq_len=step["seq_len"])
    loss = Loss.KEPT if step["keeps_outputs"] else Loss.FULL
    plan = StepPlan(step["optimizer"], None, loss, step["accumulation"], step["attention"])
    lora = Lora(16, "all-linear", dropout=step["dropout"], dora=step["dora"])
    state = PEFT if step["peft_prepare"] else AS_IT_IS
    twin = prepared_twin(model, PREPARATIONS[state], context, lora)
    mode = ON if step["checkpointing"] else OFF
    measured = measure(state, twin, context, plan, modes=(mode,))
    if measured.failure:
        raise SystemExit(f"{step['geometry']}, {step['setup']}: {measured.failure}")
    return measured.steps[mode].peak


def ratios(geometries, setups):
    """Yield (geometry, set-up, told / allocated, allocated - told) of each recorded step."""
    with tempfile.TemporaryDirectory() as place:
        for step in json.loads(FILE.read_text())["steps"]:
            if step["geometry"] in geometries and step["setup"] in (setups or [step["setup"]]):
                peak = told(config_folder(step["geometry"], place), step)
                yield step["geometry"], step["setup"], peak / step["allocated"], step["allocated"] - peak


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--geometry", choices=GEOMETRIES, action="append", help="this one only; repeatable")
    parser.add_argument("--setup", action="append", help="this one only; repeatable")
    parser.add_argument("--json", type=Path, help="also write the figures there")
    options = parser.parse_args()
    found = {}
    for geometry, setup, ratio, missing in ratios(options.geometry or GEOMETRIES, options.setup):
        found[f"{geometry}, {setup}"] = round(ratio, 4)
        why = f"  ({EXPLAINED[setup]})" if setup in EXPLAINED else ""
        print(f"{geometry:<18}{setup:<54}{ratio:>7.4f} of a real one{missing / 1e6:>10.1f} MB less{why}", flush=True)
    return leave(
        goals({name: ratio for name, ratio in found.items() if name.partition(", ")[2] not in EXPLAINED}),
        options.json,
        ratios=found,
    )


def goals(found):
    """Yield the goals for the largest deviation and for the median one."""
    away = [abs(ratio - 1) for ratio in found.values()]
    yield Goal(f"peak of a step, table against an H200: farthest of {len(away)}", max(away), GOALS["farthest"], "%")
    yield Goal(f"peak of a step, table against an H200: median of {len(away)}", statistics.median(away), GOALS["median"], "%")


if __name__ == "__main__":
    sys.exit(main())
