"""Rule KB721: device-map-under-zero3."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from kbitlint.facts.values import UNKNOWN
from kbitlint.rule import Meta, Rule
from kbitlint.violation import Consequence, Fix, Safety, Severity, Surface, Violation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kbitlint.context import TrainingContext
    from kbitlint.facts.source import SourceFacts


class DeviceMapUnderZero3(Rule):
    """A device map together with DeepSpeed ZeRO-3.

    ## What it does

    Reports a model that is loaded with a `device_map` and trained with a ZeRO-3 configuration on every path.

    ## Why is this bad?

    ZeRO-3 places the shards of the weights itself. If the training arguments are created before the load, transformers
    raises `DeepSpeed Zero-3 is not compatible with passing a device_map`. If they are created after the load, every
    process first loads the whole model to the devices of the map: a warning.

    ## Example

    `from_pretrained(name, device_map='auto')` with `TrainingArguments(deepspeed='ds_config_zero3.json')`.

    ## Fix

    Remove the device map.

    ## Fix safety

    Display only: other runs of the script may need the map.

    ## References

    - https://github.com/huggingface/peft/issues/306
    - https://github.com/huggingface/transformers/issues/26412
    - https://github.com/hiyouga/LlamaFactory/issues/3949
    """

    meta: ClassVar[Meta] = Meta(
        code="KB721",
        slug="device-map-under-zero3",
        severity=Severity.ERROR,
        consequence=Consequence.FAILS,
        since="0.1.0",
    )

    def check_source(self, source: SourceFacts, context: TrainingContext) -> Iterator[Violation]:
        """Yield one violation for each load with a map whose model is trained under ZeRO-3 on every path."""
        for trained in source.trained():
            load = trained.models[0].load
            argument = load.argument("device_map") if load is not None else None
            given = argument is not None and argument.value not in (None, UNKNOWN)
            if given and argument is not None and all(training.zero_stage == 3 for training in trained.paths):
                arguments = trained.paths[0].arguments
                # transformers refuses only if the arguments exist before the load, because they enable ZeRO-3
                refused = arguments is not None and load is not None and arguments.span.start < load.span.start
                yield self.violation(
                    "a device_map is passed, and ZeRO-3 places the weights itself",
                    source.at_line(argument.whole.line, "device_map"),
                    surface=Surface.SOURCE,
                    severity=Severity.ERROR if refused else Severity.WARNING,
                    consequence=None if refused else Consequence.COSTS_MEMORY,
                    evidence={"zero_stage": 3, "arguments_first": refused},
                    fix=Fix("leave the device_map out", Safety.DISPLAY),
                )
