"""Rule KB625: untrained-adapter."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from kbitlint.rule import Meta, Rule, Unchecked
from kbitlint.violation import Consequence, Fix, Location, Safety, Severity, Surface, Violation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kbitlint.context import TrainingContext
    from kbitlint.facts.checkpoint import CheckpointFacts


class UntrainedAdapter(Rule):
    """A saved LoRA adapter, or layers of one, that never trained: lora_B is zero.

    ## What it does

    Reads the `lora_B` tensors of adapter_model.safetensors, which are small. Reports an adapter in which all of them
    contain only zeros, or in which some do. Applies to the default and the Gaussian initialisation, which start `lora_B`
    at zero.

    ## Why is this bad?

    `lora_B` starts at zero and changes with the first step that reaches it. If all are zero after training, no gradient
    arrived: the adapter was frozen, or a reentrant checkpoint cut it off. If some are zero, those layers were not part of
    the loss: a tower without images, a layer whose weight other code reads, an adapter that was loaded under other names.

    ## Example

    An adapter that was saved after training a model that was prepared after `get_peft_model`.

    ## Fix

    Find the cause with `kbitlint check` on the script, and train again.

    ## Fix safety

    Display only: the adapter has to be trained again.

    ## References

    - https://github.com/huggingface/peft/issues/282
    - https://github.com/huggingface/peft/issues/1142
    - https://github.com/huggingface/trl/issues/3926
    """

    meta: ClassVar[Meta] = Meta(
        code="KB625",
        slug="untrained-adapter",
        severity=Severity.WARNING,
        consequence=Consequence.TRAINS_NOTHING,
        since="0.1.0",
    )

    def check_files(self, checkpoint: CheckpointFacts, context: TrainingContext) -> Iterator[Violation]:
        """Yield at most one violation, on the adapter's file."""
        names = [name for name, tensor in checkpoint.adapter_tensors.items() if ".lora_B." in name and tensor.nbytes]
        if not names:
            raise Unchecked("no lora_B in an adapter_model.safetensors here")
        initialised = (checkpoint.adapter or {}).get("init_lora_weights", True)
        if checkpoint.zero_known and checkpoint.zero and initialised in (True, "gaussian"):
            everything = len(checkpoint.zero) == len(names)
            what = f"all {len(names)} lora_B are zero, so the adapter changes nothing"
            some = f"{len(checkpoint.zero)} of {len(names)} lora_B are zero: no gradient reached these layers"
            yield self.violation(
                what if everything else some,
                Location("" if everything else min(checkpoint.zero), "adapter_model.safetensors"),
                surface=Surface.FILES,
                severity=Severity.WARNING if everything else Severity.INFO,
                evidence={"zero": len(checkpoint.zero), "lora_B": len(names)},
                fix=Fix("audit the script that trained it, and train again", Safety.DISPLAY),
            )
