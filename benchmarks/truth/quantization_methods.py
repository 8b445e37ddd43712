"""Verdicts on quantization methods other than bitsandbytes, compared with real steps on a CPU.

    pip install --no-deps torchao
    python -m benchmarks.truth.quantization_methods

torchao is no dependency of the tests. Its compiled parts are built for other versions of torch than the pinned one, so
every process that imports transformers would print a warning about them.
"""

from __future__ import annotations

import sys
from typing import Any

import torch

import kbitlint
from tests.support import tiny

#: quantization types of torchao that have CPU kernels
TYPES = (
    "Int8WeightOnlyConfig",
    "Int8DynamicActivationInt8WeightConfig",
    "Float8WeightOnlyConfig",
)


def load(name: str) -> Any:
    """Return a tiny Llama that torchao has quantized with this type."""
    import torchao.quantization
    import transformers

    config = transformers.TorchAoConfig(quant_type=getattr(torchao.quantization, name)())
    return transformers.LlamaForCausalLM.from_pretrained(
        tiny.checkpoint(), quantization_config=config, device_map={"": "cpu"}, dtype=torch.bfloat16
    )


def adapted(name: str) -> Any:
    from peft import LoraConfig, get_peft_model

    return get_peft_model(load(name), LoraConfig(r=4, target_modules=["q_proj", "up_proj"], init_lora_weights=False))


def main() -> int:
    from peft import prepare_model_for_kbit_training

    wrong = 0
    print(f"{'type':40} {'layers':>6} {'says':8} {'step':8} {'fixed':8} after PEFT's prepare")
    for name in TYPES:
        model = adapted(name)
        report = kbitlint.check(model)
        says = "error" if report.at_least(kbitlint.Severity.ERROR) else "trains"
        step = "trains" if tiny.step(model).trains else "error"
        fixed = adapted(name)
        kbitlint.fix(fixed)
        after = "trains" if tiny.step(fixed).trains else "error"
        prepared = prepare_model_for_kbit_training(load(name))
        dtypes = sorted({str(parameter.dtype).removeprefix("torch.") for parameter in prepared.parameters()})
        layers = sum("torchao" in type(m.weight.data).__module__ for m in prepared.modules() if hasattr(m, "weight"))
        print(
            f"{name:40} {layers:6} {says:8} {step:8} {after:8} {', '.join(dtypes)}, "
            f"checkpointing {'on' if prepared.is_gradient_checkpointing else 'off'}"
        )
        wrong += says != step or after != step
    print(f"{len(TYPES) - wrong} of {len(TYPES)} verdicts are what the step did")
    return wrong


if __name__ == "__main__":
    sys.exit(main())
