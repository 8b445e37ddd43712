"""Every adapter type of PEFT on nf4 and int8 layers, in every order of preparation: the verdict beside a real step.

    python -m benchmarks.truth.adapters [--only NAME ...] [--kind nf4 int8] [--out FILE] [--json FILE]

Each state is a tiny Llama, quantized through ``from_pretrained``. It is prepared, gets its adapters, is audited, and trains
two steps. A state agrees if an error is reported exactly where a step raises or where no adapter gets a gradient, and if the
traced step reaches the same parameters. Results that ``--out`` already has are not measured again.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import warnings
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import peft
import torch
import transformers

import kbitlint
from benchmarks.goals import Goal, leave
from kbitlint.context import TrainingContext
from kbitlint.model.batch import loss_of, training_batch
from kbitlint.violation import Consequence
from tests.support import tiny

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_SOME = ["q_proj", "v_proj", "up_proj"]
_TASK = "CAUSAL_LM"


@dataclass(frozen=True)
class Setup:
    """A way to attach adapters."""

    attach: Callable[[Any], Any]
    """Takes the base model, returns the model that is trained."""


def _config(name: str, **values: Any) -> Setup:
    def attach(model: Any) -> Any:
        return peft.get_peft_model(model, getattr(peft, f"{name}Config")(**values))

    return Setup(attach)


def _layers(name: str, **values: Any) -> Setup:
    return _config(name, **{"target_modules": _SOME, **values})


def _lora(**values: Any) -> Setup:
    return _layers("Lora", **{"r": 4, "init_lora_weights": False, "task_type": _TASK, **values})


def _second(*, trained: bool, **values: Any) -> Setup:
    def attach(model: Any) -> Any:
        first = peft.LoraConfig(r=4, target_modules=_SOME, init_lora_weights=False, task_type=_TASK)
        made = peft.get_peft_model(model, first, adapter_name="first")
        second = peft.LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False, task_type=_TASK, **values)
        made.add_adapter("second", second)
        if trained:
            made.set_adapter("second")
        return made

    return Setup(attach)


def _without_autocast(**values: Any) -> Setup:
    """Adapters that stay in the dtype of the model (``autocast_adapter_dtype=False``)."""

    def attach(model: Any) -> Any:
        config = peft.LoraConfig(r=4, target_modules=_SOME, init_lora_weights=False, task_type=_TASK, **values)
        return peft.get_peft_model(model, config, autocast_adapter_dtype=False)

    return Setup(attach)


def _merged(model: Any) -> Any:
    made = _lora().attach(model)
    made.merge_adapter()
    return made


def _mixed(model: Any) -> Any:
    first = peft.LoraConfig(r=4, target_modules=_SOME, init_lora_weights=False)
    return peft.get_peft_model(model, first, mixed=True)


def _added(model: Any) -> Any:
    model.add_adapter(peft.LoraConfig(r=4, target_modules=_SOME, init_lora_weights=False))
    return model


SETUPS: dict[str, Setup] = {
    "lora": _lora(),
    "lora, all linear": _lora(target_modules="all-linear"),
    "lora, first init": _lora(init_lora_weights=True),
    "lora, dropout": _lora(lora_dropout=0.1),
    "lora, rslora": _lora(use_rslora=True),
    "lora, bias of adapters": _lora(bias="lora_only"),
    "lora, lora_bias": _lora(lora_bias=True),
    "lora, modules to save": _lora(modules_to_save=["lm_head"]),
    "lora, embeddings too": _lora(target_modules=[*_SOME, "embed_tokens"]),
    "lora, tokens": _lora(trainable_token_indices=list(range(64))),
    "lora, layers to transform": _lora(layers_to_transform=[1]),
    "lora, replicated layers": _lora(layer_replication=[[0, 2], [1, 2]]),
    "lora, rank pattern": _lora(rank_pattern={"q_proj": 2}),
    "lora, not cast": _without_autocast(),
    "lora, transformers' add_adapter": Setup(_added),
    "lora, mixed": Setup(_mixed),
    "lora, merged": Setup(_merged),
    "lora, second trained": _second(trained=True),
    "lora, second idle": _second(trained=False),
    "dora": _lora(use_dora=True),
    "dora, dropout": _lora(use_dora=True, lora_dropout=0.1),
    "dora, not cast": _without_autocast(use_dora=True),
    "pissa": _lora(init_lora_weights="pissa"),
    "olora": _lora(init_lora_weights="olora"),
    "orthogonal": _lora(init_lora_weights="orthogonal"),
    "gaussian": _lora(init_lora_weights="gaussian"),
    "alora": _lora(alora_invocation_tokens=[5, 6]),
    "qalora": _lora(use_qalora=True, qalora_group_size=16),
    "adalora": _layers("AdaLora", init_r=4, target_r=2, total_step=10, init_lora_weights=False, task_type=_TASK),
    "adamss": _layers("Adamss"),
    "adaption prompt": _config("AdaptionPrompt", adapter_len=4, adapter_layers=2, task_type=_TASK),
    "beft": _layers("Beft"),
    "boft": _layers("BOFT", boft_block_size=4, init_weights=False),
    "c3a": _layers("C3A", block_size=32, init_weights=False),
    "cartridge": _config("Cartridge", num_virtual_tokens=4, task_type=_TASK),
    "cpt": _config("CPT", cpt_token_ids=[3, 4], cpt_mask=[1, 1], cpt_tokens_type_mask=[1, 2], task_type=_TASK),
    "deft": _layers("Deft"),
    "delora": _layers("Delora", r=4),
    "fourierft": _layers("FourierFT", n_frequency=10, init_weights=False),
    "frod": _layers("Frod"),
    "glora": _layers("Glora"),
    "gralora": _layers("Gralora", r=4, gralora_k=2, init_weights=False),
    "hira": _layers("Hira", r=4, init_weights=False),
    "hra": _layers("HRA", r=4, init_weights=False),
    "ia3": _layers("IA3", feedforward_modules=["up_proj"], init_ia3_weights=False),
    "lily": _layers("Lily", r=4),
    "ln tuning": _config("LNTuning", task_type=_TASK),
    "loha": _layers("LoHa", r=4, init_weights=False),
    "lokr": _layers("LoKr", r=4, init_weights=False),
    "miss": _layers("Miss", r=4, init_weights=False),
    "multitask prompt tuning": _config("MultitaskPromptTuning", num_virtual_tokens=4, num_tasks=2, task_type=_TASK),
    "oft": _layers("OFT", oft_block_size=16, init_weights=False),
    "oft, not cayley-neumann": _layers("OFT", oft_block_size=16, init_weights=False, use_cayley_neumann=False),
    "oft, shared": _layers("OFT", oft_block_size=16, init_weights=False, block_share=True),
    "oft, constrained": _layers("OFT", oft_block_size=16, init_weights=False, coft=True),
    "osf": _layers("OSF"),
    "peanut": _layers("Peanut"),
    "poly": _layers("Poly", r=4, n_tasks=2, n_skills=2, n_splits=1, task_type=_TASK),
    "prefix tuning": _config("PrefixTuning", num_virtual_tokens=4, task_type=_TASK),
    "prompt tuning": _config("PromptTuning", num_virtual_tokens=4, task_type=_TASK),
    "psoft": _layers("Psoft", r=4),
    "pvera": _layers("Pvera", r=4),
    "p-tuning": _config("PromptEncoder", num_virtual_tokens=4, encoder_hidden_size=32, task_type=_TASK),
    "randlora": _layers("RandLora", r=4, init_weights=False),
    "road": _layers("Road", init_weights=False),
    "shadow": _config("Shadow", task_type=_TASK),
    "shira": _layers("Shira", r=4),
    "supertuning": _layers("Supertuning"),
    "tinylora": _layers("TinyLora"),
    "trainable tokens": _config("TrainableTokens", token_indices=list(range(64))),
    "unilora": _layers("UniLora", r=4),
    "vblora": _layers("VBLoRA", r=4, num_vectors=8, vector_length=16),
    "vera": _layers("Vera", r=4, init_weights=False),
    "waveft": _layers("WaveFT", n_frequency=64, init_weights=False),
}

ORDERS = ("none", "peft", "peft-reentrant", "fix-before", "fix-after")


def made(setup: Setup, kind: str, order: str, family: str = "llama") -> Any:
    """Return a freshly loaded model, prepared in this order and with adapters."""
    base = tiny.load(family, kind)
    if order in ("peft", "peft-reentrant"):
        how = {"use_reentrant": order == "peft-reentrant"}
        peft.prepare_model_for_kbit_training(base, gradient_checkpointing_kwargs=how)
    if order == "fix-before":
        kbitlint.fix(base)
    torch.manual_seed(1)
    model = setup.attach(base)
    if order == "fix-after":
        kbitlint.fix(model)
    return model


def real_step(model: Any, autocast: bool = False) -> dict[str, Any]:  # noqa: FBT001, FBT002  # one of two columns
    """Train two steps on the batch of the trace; return the error, or the parameters with and without a gradient.

    A factor of zeros moves in the first step, so that gradients that are zero in the second one stay zero.
    """
    torch.manual_seed(0)
    model.train()
    model.zero_grad(set_to_none=True)
    batch = training_batch(model, "cpu")
    optimizer = torch.optim.SGD([parameter for parameter in model.parameters() if parameter.requires_grad], lr=0.1)
    torch.manual_seed(0)
    try:
        with torch.autocast("cpu", torch.bfloat16) if autocast else nullcontext():
            loss_of(model(**batch)).backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            loss_of(model(**batch)).backward()
    except Exception as error:  # noqa: BLE001  # the error is the result
        return {"error": f"{type(error).__name__}: {str(error)[:300]}", "with": [], "without": [], "zero": []}
    found: dict[str, Any] = {"error": None, "with": [], "without": [], "zero": []}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        path = name.removeprefix("base_model.model.")
        found["without" if parameter.grad is None else "with"].append(path)
        if parameter.grad is not None and not parameter.grad.any():
            found["zero"].append(path)
    return found


def verdict(model: Any) -> dict[str, Any]:
    """Return what kbitlint says of a model: violations, skips, crashes, and the parameters that its traced step reaches."""
    from kbitlint.model.trace.trace import trace

    context = TrainingContext(autocast_dtype="float32")
    report = kbitlint.check(model, context=context)
    try:
        traced = trace(model, context)
        reached: Any = sorted(gradient.path for gradient in traced.gradients if gradient.arrives)
        zeroed = sorted(gradient.path for gradient in traced.gradients if gradient.zeroed_by)
        failure = traced.failure or (str(traced.refusals[:1]) if traced.refusals else None)
    except Exception as error:  # noqa: BLE001  # no trace is a result
        reached, zeroed, failure = None, [], f"{type(error).__name__}: {str(error)[:300]}"
    return {
        "violations": sorted({(v.code, v.severity.value, v.message, v.consequence.value) for v in report.violations}),
        "skips": [skip.reason for skip in report.skips if skip.surface.value == "trace" and not skip.code],
        "crashes": [crash.traceback for crash in report.crashes],
        "reached": reached,
        "zeroed": zeroed,
        "undefined": failure is None and any(v.code == "KB316" for v in report.violations),
        "failure": failure,
    }


def state(name: str, kind: str, order: str) -> dict[str, Any]:
    """Return the real step and the verdict of one state."""
    line: dict[str, Any] = {"setup": name, "kind": kind, "order": order, "attach": None}
    try:
        model = made(SETUPS[name], kind, order)
    except Exception as error:  # noqa: BLE001  # a type that cannot be attached is a result
        return line | {"attach": f"{type(error).__name__}: {str(error)[:300]}"}
    line["verdict"] = verdict(model)
    line["real"] = real_step(model)
    return line


def trains(line: dict[str, Any]) -> bool:
    """Return whether the real step raises no error and gives an adapter a gradient that is not zero."""
    real = line["real"]
    return real["error"] is None and len(real["with"]) > len(real["zero"])


def differences(line: dict[str, Any]) -> list[str]:
    """Return in what the verdict of a state is not the outcome of its step."""
    if line["attach"] is not None:
        return []
    said, found = line["verdict"], []
    errors = [v for v in said["violations"] if v[1] == "error"]
    refuted = [v for v in errors if Consequence.TRAINS_WRONG.value not in v]  # a step that runs with noise runs
    if trains(line) and refuted:
        found.append(f"false error {refuted[0]}")
    if not trains(line) and not errors:
        found.append(f"silent: {line['real']['error'] or 'no gradient'}")
    if said["crashes"]:
        found.append(f"crash {said['crashes'][0][-200:]}")
    if said["skips"]:
        found.append(f"not traced: {said['skips'][0]}")
    elif line["real"]["error"] is None and said["reached"] is not None and sorted(line["real"]["with"]) != said["reached"]:
        found.append("the trace reaches other parameters")
    elif (
        line["real"]["error"] is None
        and not said["undefined"]
        and errors == refuted
        and sorted(line["real"]["zero"]) != said["zeroed"]
    ):
        found.append(f"gradients that stay zero: really {line['real']['zero'][:2]}, traced {said['zeroed'][:2]}")
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="*", default=[])
    parser.add_argument("--kind", nargs="*", default=["nf4", "int8"])
    parser.add_argument("--order", nargs="*", default=list(ORDERS))
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[1] / "adapters.jsonl")
    parser.add_argument("--json", type=Path, help="also write the figures there")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    transformers.utils.logging.set_verbosity_error()
    lines = [json.loads(text) for text in options.out.read_text().splitlines()] if options.out.exists() else []
    known = {(line["setup"], line["kind"], line["order"]) for line in lines}
    for name in options.only or SETUPS:
        for kind in options.kind:
            for order in options.order:
                if (name, kind, order) not in known:
                    lines.append(state(name, kind, order))
                    with options.out.open("a") as file:
                        file.write(json.dumps(lines[-1]) + "\n")
    return leave(goals(lines), options.json)


def goals(lines: list[dict[str, Any]]) -> Iterator[Goal]:
    """Print every difference, and yield the goal."""
    found = [(line, what) for line in lines for what in differences(line)]
    for line, what in found:
        print(f"{line['setup']:26} {line['kind']:5} {line['order']:15} {what}")
    attached = [line for line in lines if line["attach"] is None]
    wrong = {(line["setup"], line["kind"], line["order"]) for line, _ in found}
    types = len({line["setup"] for line in attached})
    yield Goal(f"states of {types} kinds of adapters judged otherwise than they train", len(wrong), 0, "", of=len(attached))


if __name__ == "__main__":
    sys.exit(main())
