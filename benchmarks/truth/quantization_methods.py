"""Verdicts on quantization methods other than bitsandbytes, compared with real steps on a CPU.

    pip install --no-deps --target DIR torchao hqq optimum-quanto ninja termcolor einops
    PYTHONPATH=DIR python -m benchmarks.truth.quantization_methods [--only NAME ...]

Each method quantizes a tiny Llama through ``from_pretrained``. The model is prepared in every order of
``benchmarks.truth.adapters``, with LoRA on some layers and on all. The packages are no dependency of the tests: torchao prints
a warning in every process that imports transformers, and hqq replaces a part of its cache.
"""

from __future__ import annotations

import argparse
import functools
import sys
import warnings
from typing import TYPE_CHECKING, Any

import peft
import torch
import transformers

import kbitlint
from benchmarks.goals import Goal, leave
from benchmarks.truth.adapters import ORDERS, differences, real_step, verdict
from tests.support import tiny

if TYPE_CHECKING:
    from collections.abc import Callable


def _torchao(name: str, **arguments: Any) -> Any:
    import torchao.quantization  # no dependency of kbitlint

    return transformers.TorchAoConfig(quant_type=getattr(torchao.quantization, name)(**arguments))


#: name -> the config of transformers that asks for it, made when its package is wanted
METHODS: dict[str, Callable[[], Any]] = {
    **{
        f"torchao {name}": functools.partial(_torchao, f"{name}Config")
        for name in ("Int8WeightOnly", "Int8DynamicActivationInt8Weight", "Float8WeightOnly")
    },
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


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", nargs="*", default=list(METHODS))
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    transformers.utils.logging.set_verbosity_error()
    wrong = states = 0
    for method in options.only:
        for name, targets in TARGETS.items():
            for order in ORDERS:
                line: dict[str, Any] = {"attach": None}
                try:
                    model = made(method, order, targets)
                    line |= {"verdict": verdict(model), "real": real_step(model)}
                except Exception as error:  # noqa: BLE001  # a method that cannot be loaded or adapted is a result
                    print(f"{method:42}{name:5}{order:15} {type(error).__name__}: {str(error)[:120]}", flush=True)
                    continue
                found = differences(line)
                states, wrong = states + 1, wrong + bool(found)
                did = (
                    line["real"]["error"]
                    or f"{len(line['real']['with'])} of {len(line['real']['with'] + line['real']['without'])}"
                )
                errors = sorted({violation[0] for violation in line["verdict"]["violations"] if violation[1] == "error"})
                print(f"{method:42}{name:5}{order:15} {did[:70]} {errors} {found}", flush=True)
    return leave([Goal("states of other quantization methods judged wrong", wrong, 0, "", of=states)], None)


if __name__ == "__main__":
    sys.exit(main())
