"""Models that are not of transformers, in nf4 and with LoRA: the verdict beside a real step.

    python -m benchmarks.truth.other_models (diffusers | modules) [--out FILE] [--json FILE]

``diffusers`` are tiny transformers and UNets of diffusers, ``modules`` are modules as users write them: towers, experts, value
heads, recurrent and convolutional ones, of no library. Each is prepared in four ways, audited, and trains one step. A state
agrees if an error is reported exactly where the step raises or reaches no adapter, and if the traced step reaches the same
parameters. Results that ``--out`` has are not measured again.
"""

from __future__ import annotations

import argparse
import re
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import bitsandbytes as bnb
import peft
import torch

import kbitlint
from benchmarks.goals import Goal, Kept, leave
from kbitlint.context import TrainingContext
from kbitlint.model.batch import loss_of, training_batch
from kbitlint.model.inputs.entries import changed
from kbitlint.model.inputs.media import float_dtype
from kbitlint.model.inputs.plan import DOCUMENTED
from kbitlint.model.layers.norms import is_norm
from kbitlint.model.trace.fitting import plan_for
from kbitlint.model.trace.trace import trace

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests" / "support"))  # its modules import each other by name
import diffusion  # see above
import plain  # see above
import unseen  # see above
import unusual  # see above

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_CONTEXT = TrainingContext(autocast_dtype="float32")
_LEFT = ("router", "v_head", "lm_head")
#: what a report calls each group
GROUPS = {"diffusers": "denoisers of diffusers", "modules": "modules of no library"}
PEFT, FIX = "PEFT's prepare", "the fix"


def _cast_norms(model: Any) -> None:
    for layer in model.modules():
        if is_norm(layer):
            layer.float()


PREPARATIONS: dict[str, Callable[[Any], Any]] = {
    "none": lambda _: None,
    PEFT: lambda model: peft.prepare_model_for_kbit_training(model, use_gradient_checkpointing=False),
    "norms in float32": _cast_norms,
    FIX: kbitlint.fix,
}


def _denoiser(name: str, prepare: Callable[[Any], Any]) -> Any:
    model = diffusion.denoiser(name)
    model.requires_grad_(requires_grad=False)
    prepare(model)
    return diffusion.with_adapters(model).train()


def _module(kind: Any, prepare: Callable[[Any], Any]) -> Any:
    torch.manual_seed(0)
    model = diffusion.quantized(kind().to(torch.bfloat16), leave=_LEFT)
    model.requires_grad_(requires_grad=False)
    prepare(model)
    targets = [path for path, layer in model.named_modules() if isinstance(layer, bnb.nn.Linear4bit)]
    return peft.get_peft_model(model, peft.LoraConfig(r=4, init_lora_weights=False, target_modules=targets))


def makers(group: str) -> dict[str, Callable[[Callable[[Any], Any]], Any]]:
    """Return the models of a group by name, each as a function of its preparation."""
    if group == "diffusers":
        return {name: lambda prepare, name=name: _denoiser(name, prepare) for name in diffusion.DENOISERS}  # type: ignore[misc]
    kinds = (*plain.KINDS, *unusual.KINDS, *unseen.KINDS)
    return {kind.__name__: lambda prepare, kind=kind: _module(kind, prepare) for kind in kinds}  # type: ignore[misc]


def state(make: Callable[[Callable[[Any], Any]], Any], preparation: str) -> dict[str, Any]:
    """Return the verdict on a model and its real step."""
    model = make(PREPARATIONS[preparation])
    report = kbitlint.check(model, context=_CONTEXT)
    traced = trace(model, _CONTEXT)
    said = {
        "errors": sorted({f"{v.code} {v.message}" for v in report.violations if v.severity.value == "error"}),
        "crashes": [crash.traceback for crash in report.crashes],
        "skips": [skip.reason for skip in report.skips if skip.surface.value == "trace" and not skip.code],
        "traced": _paths(gradient.path for gradient in traced.gradients if gradient.arrives),
        "failed": bool(traced.refusals or traced.failure),
    }
    return said | _step(model)


def _step(model: Any) -> dict[str, Any]:
    """Return the trainable parameters that a real step reaches, or the error that it raises."""
    model.train()
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    if hasattr(inner, "example"):
        batch = changed(inner.example(), lambda one: one.to(float_dtype(inner)) if one.is_floating_point() else one)
    else:
        batch = training_batch(model, "cpu", plan=plan_for(model, "cpu") or DOCUMENTED)
    try:
        loss_of(model(**batch)).backward()
    except Exception as error:  # noqa: BLE001  # the error is the result
        return {"error": f"{type(error).__name__}: {str(error)[:300]}", "reached": []}
    return {"error": None, "reached": _paths(name for name, one in model.named_parameters() if one.grad is not None)}


def _paths(names: Iterator[str]) -> list[str]:
    """Return paths without the names of wrappers, at the model of transformers below which facts begin."""
    return sorted(re.sub(r"(base_model\.model|auto_model|pretrained_model|policy)\.", "", name) for name in names)


def difference(line: dict[str, Any]) -> str | None:
    """Return in what the verdict on a state is not the outcome of its step, or None."""
    trains = line["error"] is None and bool(line["reached"])
    if line["crashes"]:
        return f"crash {line['crashes'][0][-200:]}"
    if trains and line["errors"]:
        return f"false error {line['errors'][0]}"
    if not trains and not line["errors"]:
        return f"silent: {line['error'] or 'no gradient'}"
    if line["skips"]:
        return f"not traced: {line['skips'][0]}"
    same = line["failed"] if line["error"] else line["traced"] == line["reached"] and not line["failed"]
    return None if same else "the traced step is another one"


def goals(group: str, lines: dict[tuple[str, str], dict[str, Any]]) -> Iterator[Goal]:
    """Print every difference, and yield the goals."""
    found = {key: what for key, line in lines.items() if (what := difference(line)) is not None}
    for (name, preparation), what in found.items():
        print(f"{name:20} {preparation:18} {what}")
    trains = {key for key, line in lines.items() if line["error"] is None and line["reached"]}
    names = sorted({name for name, _ in lines})
    lost = [name for name in names if any((name, other) in trains for other in PREPARATIONS) and (name, FIX) not in trains]
    yield Goal(f"states of {len(names)} {GROUPS[group]} judged otherwise than they train", len(found), 0, "", of=len(lines))
    yield Goal(f"{GROUPS[group]} that train, and not after the fix", len(lost), 0, "", of=len(names))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("group", choices=GROUPS)
    parser.add_argument("--out", type=Path, help="the results file; benchmarks/other-GROUP.jsonl by default")
    parser.add_argument("--json", type=Path, help="also write the figures there")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    kept = Kept(options.out or Path(__file__).parents[1] / f"other-{options.group}.jsonl")
    lines = {
        (name, preparation): kept.get(
            f"{name}, {preparation}", lambda make=make, preparation=preparation: state(make, preparation)
        )
        for name, make in makers(options.group).items()
        for preparation in PREPARATIONS
    }
    return leave(goals(options.group, lines), options.json)


if __name__ == "__main__":
    sys.exit(main())
