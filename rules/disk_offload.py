"""KB707."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from kbitlint.rule import Meta, Rule
from kbitlint.violation import Consequence, Fix, Location, Safety, Severity, Violation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kbitlint.context import TrainingContext
    from kbitlint.model.facts import ModelFacts


class DiskOffload(Rule):
    """A quantized model of which a part lies on disk.

    ## What it does

    Reports a model with bitsandbytes layers whose `hf_device_map` names `disk`. In Trainer it is an error; elsewhere a
    warning, since a loop of one's own can train as long as only unpacked layers lie there. (A packed layer that is
    brought for each call does not run at all: `parameter-without-data`.)

    ## Why is this bad?

    accelerate refuses to prepare such a model, so Trainer, TRL and every loop with `accelerator.prepare` stop before
    the first step: "You can't train a model that has been loaded in 8-bit or 4-bit precision with CPU or disk offload".

    ## Example

    `from_pretrained(..., device_map="auto", offload_folder=...)` where the model does not fit.

    ## Fix

    A smaller model, fewer bits, or FSDP over several GPUs.

    ## Fix safety

    Shown only: where the weights fit is not known here.

    ## References

    - https://github.com/huggingface/accelerate/issues/1515
    - https://github.com/huggingface/transformers/issues/26153
    """

    meta: ClassVar[Meta] = Meta(
        code="KB707",
        slug="disk-offload",
        severity=Severity.ERROR,
        consequence=Consequence.FAILS,
        since="0.1.0",
    )

    def check_model(self, model: ModelFacts, context: TrainingContext) -> Iterator[Violation]:
        """At most one violation, on the model as a whole."""
        packed = any(layer.packing.method == "bitsandbytes" for layer in model.quantized)
        if not packed or len(model.device_map) < 2 or "disk" not in model.device_map:
            return
        refused = context.sets_training_mode is True
        yield self.violation(
            "a part of the model lies on disk, and accelerate refuses to train a quantized model so",
            Location(),
            severity=Severity.ERROR if refused else Severity.WARNING,
            consequence=None if refused else Consequence.FRAGILE,
            evidence={"devices": list(model.device_map), "offloaded": len(model.offloaded)},
            fix=Fix("load it where all of it fits", Safety.DISPLAY),
        )
