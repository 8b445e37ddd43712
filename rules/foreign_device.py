"""Rule KB708: foreign-device."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from kbitlint.rule import Meta, Rule, Unstated
from kbitlint.violation import Consequence, Fix, Location, Safety, Severity, Violation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kbitlint.context import TrainingContext
    from kbitlint.facts.model import ModelFacts


class ForeignDevice(Rule):
    """A quantized model on another device than the one on which its rank trains.

    ## What it does

    Reports a model with bitsandbytes layers whose `hf_device_map` names one device, if the rank trains on another. The
    rank's device is read from `LOCAL_RANK` under a launcher, or from the training arguments.

    ## Why is this bad?

    Packed weights are not moved later. All ranks would compute on one GPU while their batches are on others. accelerate
    refuses: "You can't train a model that has been loaded in 8-bit or 4-bit precision on a different device than the
    one you're training on".

    ## Example

    `from_pretrained(..., device_map={"": 0})` in a script that `accelerate launch --num_processes 2` runs.

    ## Fix

    Load with `device_map={"": PartialState().local_process_index}`.

    ## Fix safety

    Display only: an edit cannot move loaded weights.

    ## References

    - https://github.com/huggingface/accelerate/issues/1515
    - https://github.com/huggingface/peft/issues/414
    """

    meta: ClassVar[Meta] = Meta(
        code="KB708",
        slug="foreign-device",
        severity=Severity.ERROR,
        consequence=Consequence.FAILS,
        since="0.1.0",
    )

    def check_model(self, model: ModelFacts, context: TrainingContext) -> Iterator[Violation]:
        """Yield at most one violation, on the model as a whole."""
        if context.device is None:
            raise Unstated("which GPU this rank trains on is not known")
        packed = any(layer.packing.method == "bitsandbytes" for layer in model.quantized)
        if not packed or len(model.device_map) != 1:
            return
        (place,) = model.device_map
        own, there = _number(context.device), _number(place)
        if there == own or (own is None and there == 0):  # accelerate compares them so: Accelerator.prepare_model
            return
        yield self.violation(
            f"the model lies on {_named(place)}, and this rank trains on {context.device}",
            Location(),
            evidence={"device_map": place, "device": context.device},
            fix=Fix("load it onto the rank's own device", Safety.DISPLAY),
        )


def _number(place: str) -> int | None:
    """Return the number of the accelerator, as in ``0`` and ``cuda:0``; None if the place contains no number."""
    number = place.rpartition(":")[2]
    return int(number) if number.isdigit() else None


def _named(place: str) -> str:
    return f"device {place}" if place.isdigit() else place
