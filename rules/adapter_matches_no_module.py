"""Rule KB623: adapter-matches-no-module."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from kbitlint.rule import Meta, Rule, Unchecked
from kbitlint.violation import Consequence, Fix, Location, Safety, Severity, Surface, Violation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kbitlint.context import TrainingContext
    from kbitlint.facts.checkpoint import CheckpointFacts


def _module(name: str) -> str:
    """Return the path of the base module to which an adapter tensor belongs."""
    return name.partition(".lora_")[0].removeprefix("base_model.model.")


class AdapterMatchesNoModule(Rule):
    """Saved adapter weights for modules that the base model does not have.

    ## What it does

    Compares adapter_model.safetensors with the safetensors headers of the base, if the base is a folder on this
    machine. Reports each module that has LoRA tensors and no tensor in the base. It is an error if all adapted modules
    are missing, and a warning otherwise.

    Experts and `lm_head` are never reported: a base can store fused experts under other names, and does not store a
    tied head.

    ## Why is this bad?

    PEFT loads the tensors that match, and leaves the others at their initial values. What those adapters learned is
    lost. The only sign is a warning that is easily missed among others.

    ## Example

    An adapter that was trained on a model with `self_attn` is loaded on a model that calls it `attention`.

    ## Fix

    Load the adapter on the base on which it was trained.

    ## Fix safety

    Display only: the choice of the base is the user's.

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
        """Yield one violation for each module of the adapter that the base does not have."""
        if not checkpoint.adapter_tensors:
            raise Unchecked("no adapter_model.safetensors here")
        base = checkpoint.base
        if base is None or not base.tensors or base.damages or base.unread:
            raise Unchecked("the headers of the adapter's base are not here")
        have = {name.rpartition(".")[0] for name in base.tensors}
        wanted = sorted({_module(name) for name in checkpoint.adapter_tensors if ".lora_" in name})
        lost = [module for module in wanted if module not in have]
        # a base stores fused experts under other names, and does not store a tied head
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
