"""The states in which a quantized model is trained: functions that work on real weights and on the meta device alike.

Every preparation is applied to a freshly loaded model. Adapters are attached afterwards, as in training scripts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from transformers import BitsAndBytesConfig, PreTrainedModel

import kbitlint
from kbitlint.extras import load_bitsandbytes
from kbitlint.model.inspect.walk import collect
from kbitlint.model.layers import checkpointing, norms

if TYPE_CHECKING:
    from collections.abc import Callable

bitsandbytes = load_bitsandbytes("the evaluation")


@dataclass(frozen=True)
class Preparation:
    """One way to prepare a quantized model for training, and the conditions of its steps."""

    what: str
    prepare: Callable[[Any], Any]
    """Changes the model in place. Its return value is written to the results as a note."""
    autocast: bool = False
    """Whether the forward pass runs under bfloat16 autocast."""
    only_without_checkpointing: bool = False
    """Whether it applies only to models whose class cannot checkpoint."""
    only_with_experts: bool = False
    """Whether it applies only to models that keep experts as stacked parameters."""

    def applies(self, *, checkpoints: bool, experts: int) -> bool:
        return not (self.only_without_checkpointing and checkpoints) and not (self.only_with_experts and not experts)

    def applies_to(self, model: Any) -> bool:
        return self.applies(checkpoints=checkpointing.supports_checkpointing(model), experts=experts_in(model))


def experts_in(model: Any) -> int:
    """Return the number of stacked expert parameters of a model."""
    return sum(parameter.bank for parameter in collect(model).parameters)


def quantization() -> BitsAndBytesConfig:
    return BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.bfloat16)


def with_lora(model: Any) -> Any:
    """Attach LoRA to every linear layer but the output head, with both factors random so that both get gradients.

    Subclasses of Linear get no adapter. bitsandbytes does not quantize them either, as they compute something else.
    """
    from peft import LoraConfig, get_peft_model

    linears = {name: module for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    config = LoraConfig(r=4, init_lora_weights=False, target_modules="all-linear")
    if any(isinstance(module, bitsandbytes.nn.Linear4bit) for module in linears.values()):
        head, kinds = model.get_output_embeddings(), (nn.Linear, bitsandbytes.nn.Linear4bit)
        chosen = [name for name, module in linears.items() if type(module) in kinds and module is not head]
        config.target_modules = {name for name in chosen if not _refused(config, model, name)}
    return get_peft_model(model, config)


def _refused(config: Any, model: Any, name: str) -> bool:
    """Return whether PEFT refuses to adapt a layer, as for the output projections of some state-space models."""
    from peft.tuners.tuners_utils import _check_lora_target_modules_mamba

    try:
        _check_lora_target_modules_mamba(config, model, name.rpartition(".")[2])
    except ValueError:
        return True
    return False


def _peft(model: Any, **arguments: Any) -> None:
    from peft import prepare_model_for_kbit_training

    prepare_model_for_kbit_training(model, **arguments)


def _checkpointed(model: Any, *, reentrant: bool) -> None:
    model.requires_grad_(requires_grad=False)
    checkpointing.enable(model, use_reentrant=reentrant)


def _without_hooks(model: Any) -> None:
    _checkpointed(model, reentrant=True)
    for module in model.modules():
        if isinstance(module, PreTrainedModel):
            module.disable_input_require_grads()


def _with_hooks(model: Any) -> None:
    _checkpointed(model, reentrant=True)
    if not getattr(model, "_require_grads_hooks", None):  # transformers 4 leaves them to the caller
        model.enable_input_require_grads()


def _bare_norms(model: nn.Module) -> None:
    """Freeze the base and cast norm parameters to float32: the cast that many scripts make by hand."""
    model.requires_grad_(requires_grad=False)
    for module in model.modules():
        whole = norms.is_norm(module)
        for name, parameter in module.named_parameters(recurse=False):
            if parameter.is_floating_point() and (whole or norms.is_bare_norm(name, parameter.dim())):
                parameter.data = parameter.data.float()


def _bare_norms_checkpointed(model: Any) -> None:
    _bare_norms(model)
    _checkpointed(model, reentrant=False)


def _kbitlint(model: Any, *, unsafe: bool = False) -> dict[str, Any]:
    report = kbitlint.fix(model, unsafe=unsafe)
    return {
        "bytes": sum(parameter.nbytes for parameter in model.parameters()),
        "edits": len(report.applied.edits) if report.applied else 0,
        "left": sorted(f"{violation.code} {violation.severity.value} {violation.at.path}" for violation in report.violations),
        "crashes": [crash.traceback or crash.error for crash in report.crashes],
    }


PREPARATIONS: dict[str, Preparation] = {
    "peft": Preparation(
        "PEFT's prepare_model_for_kbit_training, use_reentrant=False",
        lambda model: _peft(model, gradient_checkpointing_kwargs={"use_reentrant": False}),
    ),
    "peft-reentrant": Preparation(
        "PEFT's prepare_model_for_kbit_training, use_reentrant=True",
        lambda model: _peft(model, gradient_checkpointing_kwargs={"use_reentrant": True}),
    ),
    "none": Preparation("as loaded, no checkpointing", lambda _: None),
    "bare-norms": Preparation("norms float32, base frozen, checkpointing without reentry", _bare_norms_checkpointed),
    "bare-norms-autocast": Preparation("bare-norms under bfloat16 autocast", _bare_norms_checkpointed, autocast=True),
    "reentrant-no-hook": Preparation("base frozen, reentrant checkpointing, no embedding hook", _without_hooks),
    "reentrant-hook": Preparation("base frozen, reentrant checkpointing, embedding hook", _with_hooks),
    "peft-no-checkpointing": Preparation(
        "PEFT's prepare_model_for_kbit_training, use_gradient_checkpointing=False",
        lambda model: _peft(model, use_gradient_checkpointing=False),
        only_without_checkpointing=True,
    ),
    "bare-norms-no-checkpointing": Preparation("norms float32, base frozen", _bare_norms, only_without_checkpointing=True),
    "bare-norms-no-checkpointing-autocast": Preparation(
        "norms float32, base frozen, under bfloat16 autocast", _bare_norms, autocast=True, only_without_checkpointing=True
    ),
    "kbitlint": Preparation("kbitlint.fix", _kbitlint),
    "kbitlint-unsafe": Preparation(
        "kbitlint.fix, unsafe: fused experts in 4 bits", lambda model: _kbitlint(model, unsafe=True), only_with_experts=True
    ),
}
