"""KB623."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from kbitlint.rule import Meta, Rule, Unchecked
from kbitlint.violation import Consequence, Fix, Location, Safety, Severity, Surface, Violation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kbitlint.context import TrainingContext
    from kbitlint.facts.checkpoint import CheckpointFacts


def _module(name: str) -> str:
    """The module of the base that an adapter tensor belongs to."""
    return name.partition(".lora_")[0].removeprefix("base_model.model.")


class AdapterMatchesNoModule(Rule):
    """Saved adapter weights whose modules the base model does not have.

    ## What it does

    Reports tensors of adapter_model.safetensors that belong to modules which are not among the weights of the base,
    where the base is a folder on this machine. Where every module of the base that the adapter could name is missing
    it is an error, else a warning.

    ## Why is this bad?

    PEFT loads what it can match and leaves the rest as initialised: the adapter starts from noise, with a warning
    that is easily missed among others, and everything it has learned is lost.

    ## Example

    An adapter that was trained on a model with `self_attn` is loaded on one that calls it `attention`.

    ## Fix

    Load the adapter on the base that it was trained on.

    ## Fix safety

    Shown only.

    ## References

    - https://github.com/huggingface/peft/issues/2892
    - https://github.com/huggingface/peft/issues/2500
    - https://github.com/huggingface/trl/issues/4416
    """

    meta: ClassVar[Meta] = Meta(
        code="KB623",
        slug="adapter-matches-no-module",
        severity=Severity.ERROR,
        consequence=Consequence.TRAINS_WRONG,
        since="0.1.0",
    )

    def check_files(self, checkpoint: CheckpointFacts, context: TrainingContext) -> Iterator[Violation]:
        """One violation for each module of the adapter that the base has not."""
        if not checkpoint.adapter_tensors:
            raise Unchecked("no adapter_model.safetensors here")
        base = checkpoint.base
        if base is None or not base.tensors or base.damages or base.unread:
            raise Unchecked("the headers of the adapter's base are not here")
        have = {name.rpartition(".")[0] for name in base.tensors}
        wanted = sorted({_module(name) for name in checkpoint.adapter_tensors if ".lora_" in name})
        lost = [module for module in wanted if module not in have]
        # fused experts, and heads that are tied and not stored, are matched by other names
        lost = [module for module in lost if "expert" not in module and module.rpartition(".")[2] != "lm_head"]
        for module in lost:
            everything = len(lost) == len(wanted)
            yield self.violation(
                "the adapter holds weights for a module that the base has not",
                Location(module, "adapter_model.safetensors"),
                surface=Surface.FILES,
                severity=Severity.ERROR if everything else Severity.WARNING,
                evidence={"modules": len(wanted), "lost": len(lost)},
                fix=Fix("load it on the base that it was trained on", Safety.DISPLAY),
            )
