"""Rule KB602: unadapted-experts."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from kbitlint.rule import Meta, Rule, Unchecked
from kbitlint.violation import Consequence, Fix, Location, Safety, Severity, Violation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kbitlint.context import TrainingContext
    from kbitlint.facts.model import ModelFacts


class UnadaptedExperts(Rule):
    """Adapters are attached, and none of them is on the fused experts.

    ## What it does

    Reports stacks of experts without an adapter in a model with adapters. The evidence states their share of the model.

    ## Why is this bad?

    `target_modules` names modules, and fused experts are parameters. Most of the model then has no adapter. (PEFT 0.21
    converts `"all-linear"`, and for some architectures the old names of projections; earlier versions do not.) Training
    works, and LoRA on attention alone is a common choice, so the severity is info.

    ## Example

    `LoraConfig(target_modules=["q_proj", "v_proj", "gate_proj", "up_proj", "down_proj"])` on Mixtral.

    ## Fix

    Use `LoraConfig(target_parameters=["mlp.experts.gate_up_proj", "mlp.experts.down_proj"], lora_dropout=0.0)`.

    ## Fix safety

    Display only: the user decides which layers learn.

    ## References

    - https://github.com/huggingface/peft/issues/3009
    - https://github.com/huggingface/peft/issues/2527
    - https://github.com/NVIDIA-NeMo/Automodel/issues/1151
    """

    meta: ClassVar[Meta] = Meta(
        code="KB602",
        slug="unadapted-experts",
        severity=Severity.INFO,
        consequence=Consequence.TRAINS_NOTHING,
        since="0.1.0",
    )

    def check_model(self, model: ModelFacts, context: TrainingContext) -> Iterator[Violation]:
        """Yield one violation for each stack of experts without an adapter."""
        if not model.has_adapters:
            raise Unchecked("no adapters are attached yet")
        adapted = tuple(f"{layer.path}." for layer in model.adapted)
        for bank in (p for p in model.parameters if p.bank and not p.adapter):
            if not (bank.path.startswith(adapted) or bank.requires_grad):
                yield self.violation(
                    "fused experts have no adapter",
                    Location(bank.path),
                    evidence={"share": round(bank.numel / model.numel, 4), "shape": list(bank.shape)},
                    fix=None if bank.packed else Fix(_suggestion(bank.path), Safety.DISPLAY),
                )


def _suggestion(path: str) -> str:
    """Return the setting that adapts the experts. PEFT cannot adapt experts that are packed in place (KB606)."""
    return f'target_parameters=["{path.rpartition(".")[2]}"] in the adapter\'s config'
