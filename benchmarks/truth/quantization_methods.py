"""Verdicts on quantization methods other than bitsandbytes, compared with real steps on a CPU.

    pip install --no-deps --target DIR torchao hqq optimum-quanto ninja termcolor einops
    PYTHONPATH=DIR python -m benchmarks.truth.quantization_methods [--only NAME ...] [--every] [--out FILE] [--json FILE]

Each method quantizes a tiny Llama through ``from_pretrained``. The model is prepared in three orders of
``benchmarks.truth.adapters``, with LoRA on some layers; ``--every`` takes all orders, and LoRA on all layers too. Results that
``--out`` has are not measured again. The packages are no dependency of the tests: torchao prints
a warning in every process that imports transformers, and hqq replaces a part of its cache.
"""

from __future__ import annotations

import argparse
import functools
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import peft
import torch
import transformers

import kbitlint
from benchmarks.goals import Goal, Kept, leave
from benchmarks.truth.adapters import ORDERS, differences, real_step, verdict
from tests.support import tiny

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


def _torchao(name: str, **arguments: Any) -> Any:
    import torchao.quantization  # no dependency of kbitlint

    return transformers.TorchAoConfig(quant_type=getattr(torchao.quantization, name)(**arguments))


def _integers(name: str, bits: int) -> Any:
    """Return the config of weights of so many bits in groups of 16, the width of the smallest layer here."""
    from torchao import quantization  # no dependency of kbitlint

    granularity = "weight_granularity" if "Activation" in name else "granularity"
    given = {"weight_dtype": getattr(torch, f"int{bits}"), granularity: quantization.PerGroup(16)}
    return transformers.TorchAoConfig(quant_type=getattr(quantization, name)(**given))


#: name -> the config of transformers that asks for it, made when its package is wanted
METHODS: dict[str, Callable[[], Any]] = {
    **{
        f"torchao {name}": functools.partial(_torchao, f"{name}Config")
        for name in ("Int8WeightOnly", "Int8DynamicActivationInt8Weight", "Float8WeightOnly")
    },
    **{
        f"torchao IntxWeightOnly, {bits} bits": functools.partial(_integers, "IntxWeightOnlyConfig", bits) for bits in (1, 2, 4)
    },
    "torchao Int8DynamicActivationIntxWeight": functools.partial(_integers, "Int8DynamicActivationIntxWeightConfig", 4),
    "fp8, dequantized": functools.partial(transformers.FineGrainedFP8Config, weight_block_size=(16, 16), dequantize=True),
    **{
        f"hqq {bits} bits": functools.partial(transformers.HqqConfig, nbits=bits, group_size=16, axis=1)
        for bits in (8, 4, 3, 2)
    },
    "hqq 4 bits, not recorded": functools.partial(transformers.HqqConfig, nbits=4, group_size=16, axis=1),
    **{
        f"quanto {kind}": functools.partial(transformers.QuantoConfig, weights=kind)
        for kind in ("int8", "int4", "int2", "float8")
    },
}
#: PEFT's ``all-linear`` does not know the layers of hqq
_ALL = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
TARGETS = {"some": ["q_proj", "up_proj"], "all": _ALL}


def _loaded(config: Any, *, recorded: bool) -> Any:
    """Return a tiny quantized Llama. transformers 5.23 refuses HQQ on a CPU, so hqq replaces the layers itself there.

    Args:
        config: The config of transformers.
        recorded: Whether a model whose layers were replaced by hand records its method, as transformers does.
    """
    by_hand = isinstance(config, transformers.HqqConfig)
    arguments = {} if by_hand else {"quantization_config": config}
    model: Any = transformers.LlamaForCausalLM.from_pretrained(
        tiny.checkpoint(), device_map={"": "cpu"}, dtype=torch.bfloat16, **arguments
    )
    if by_hand:
        from hqq.core.quantize import HQQLinear  # no dependency of kbitlint

        for name, layer in list(model.model.named_modules()):
            if isinstance(layer, torch.nn.Linear):
                packed = HQQLinear(layer, config.quant_config, compute_dtype=torch.bfloat16, device="cpu")
                model.model.set_submodule(name, packed)
        if recorded:
            model.quantization_method, model.is_quantized = "hqq", True
    return model


def made(method: str, order: str, targets: Any) -> Any:
    """Return a freshly loaded model, prepared in this order and with LoRA."""
    base = _loaded(METHODS[method](), recorded="not recorded" not in method)
    if order in ("peft", "peft-reentrant"):
        how = {"use_reentrant": order == "peft-reentrant"}
        peft.prepare_model_for_kbit_training(base, gradient_checkpointing_kwargs=how)
    if order == "fix-before":
        kbitlint.fix(base)
    config = peft.LoraConfig(r=4, target_modules=targets, init_lora_weights=False)
    model = peft.get_peft_model(base, config)
    if order == "fix-after":
        kbitlint.fix(model)
    return model


def state(method: str, order: str, targets: Any) -> dict[str, Any]:
    """Return the verdict on a model and its real step, or why it cannot be loaded or adapted."""
    try:
        model = made(method, order, targets)
    except Exception as error:  # noqa: BLE001  # a method that cannot be loaded or adapted is a result
        return {"attach": f"{type(error).__name__}: {str(error)[:300]}"}
    return {"attach": None, "verdict": verdict(model), "real": real_step(model)}


def goals(lines: dict[str, dict[str, Any]]) -> Iterator[Goal]:
    """Print what each state does, and yield the goal."""
    wrong = 0
    for name, line in lines.items():
        if line["attach"] is not None:
            print(f"{name:62} {line['attach'][:120]}")
            continue
        found, real = differences(line), line["real"]
        wrong += bool(found)
        errors = sorted({violation[0] for violation in line["verdict"]["violations"] if violation[1] == "error"})
        did = real["error"] or f"{len(real['with'])} of {len(real['with'] + real['without'])}"
        print(f"{name:62} {did[:70]} {errors} {found}")
    attached = sum(line["attach"] is None for line in lines.values())
    methods = len({name.partition(", ")[0] for name, line in lines.items() if line["attach"] is None})
    yield Goal(f"states of {methods} other quantization methods judged otherwise than they train", wrong, 0, "", of=attached)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="*", default=list(METHODS))
    parser.add_argument("--every", action="store_true", help="every order of preparation, and adapters on all layers too")
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[1] / "quantization.jsonl", help="the results file")
    parser.add_argument("--json", type=Path, help="also write the figures there")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    transformers.utils.logging.set_verbosity_error()
    torch.set_num_threads(1)
    kept, lines = Kept(options.out), {}
    for method in options.only:
        for targets in TARGETS if options.every else ("some",):
            for order in ORDERS if options.every else ("none", "peft", "fix-after"):
                lines[f"{method}, {targets}, {order}"] = kept.get(
                    f"{method}, {targets}, {order}", functools.partial(state, method, order, TARGETS[targets])
                )
    return leave(goals(lines), options.json)


if __name__ == "__main__":
    sys.exit(main())
