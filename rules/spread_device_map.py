"""Rule KB702: spread-device-map."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from kbitlint.context import Strategy
from kbitlint.rule import Meta, Rule
from kbitlint.violation import Consequence, Fix, Location, Safety, Severity, Violation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kbitlint.context import TrainingContext
    from kbitlint.facts.model import ModelFacts


class SpreadDeviceMap(Rule):
    """A model spread over several devices in a run of several ranks.

    ## What it does

    Reports a model whose `hf_device_map` names more than one device, if several ranks share the run.

    ## Why is this bad?

    Each rank trains a whole copy, or a shard, on its own device. `device_map="auto"` spreads every rank's copy over all
    devices, and accelerate refuses to prepare such a model: "You can't train a model that has been loaded in 8-bit or
    4-bit precision on multiple devices in any distributed mode".

    ## Example

    `from_pretrained(..., device_map="auto")` in a script that runs under `accelerate launch --num_processes 2`.

    ## Fix

    Load with `device_map={"": PartialState().local_process_index}`. Pass no device map for FSDP and ZeRO-3.

    ## Fix safety

    Display only: an edit cannot move loaded weights.

    ## References

    - https://github.com/huggingface/peft/issues/414
    - https://github.com/huggingface/accelerate/issues/1515
    - https://github.com/artidoro/qlora/issues/137
    """

    meta: ClassVar[Meta] = Meta(
        code="KB702",
        slug="spread-device-map",
        severity=Severity.ERROR,
        consequence=Consequence.FAILS,
        since="0.1.0",
    )
    needs_strategy: ClassVar[bool] = True

    def check_model(self, model: ModelFacts, context: TrainingContext) -> Iterator[Violation]:
        """Yield at most one violation, on the model as a whole."""
        if (
            context.strategy is None
            or context.strategy is Strategy.SINGLE
            or context.world_size == 1
            or len(model.device_map) < 2
        ):
            return
        yield self.violation(
            f"the model is spread over {len(model.device_map)} devices, which no distributed run takes",
            Location(),
            evidence={"devices": list(model.device_map), "strategy": context.strategy.value},
            fix=Fix("load it onto the rank's own device", Safety.DISPLAY),
        )
