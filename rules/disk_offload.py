"""Rule KB707: disk-offload."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from kbitlint.facts.source import Action
from kbitlint.facts.training import Loop
from kbitlint.facts.values import Call
from kbitlint.rule import Meta, Rule
from kbitlint.violation import Consequence, Fix, Location, Safety, Severity, Surface, Violation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kbitlint.context import TrainingContext
    from kbitlint.facts.model import ModelFacts
    from kbitlint.facts.source import SourceFacts, Step


class DiskOffload(Rule):
    """A quantized model with a part of its weights on disk.

    ## What it does

    Reports a model with bitsandbytes layers whose `hf_device_map` names `disk` and another device. It is an error in
    Trainer. Otherwise it is a warning, because a custom loop can train if only unpacked layers are on disk. (A packed
    layer that accelerate loads for each call does not run at all: KB710.)

    In a script, reports device maps that the quantization config does not allow: with `disk`, or with `cpu` beside
    other devices. Also reports a map with `disk` for a Trainer, even if the config allows it.

    ## Why is this bad?

    accelerate refuses to prepare such a model. Trainer, TRL and every loop with `accelerator.prepare` stop before the
    first step: "You can't train a model that has been loaded in 8-bit or 4-bit precision with CPU or disk offload".

    Without `llm_int8_enable_fp32_cpu_offload` the load itself raises a ValueError: "Some modules are dispatched on the
    CPU or the disk".

    ## Example

    `from_pretrained(..., device_map="auto", offload_folder=...)`, with a model that does not fit.

    ## Fix

    Use a smaller model, fewer bits, or FSDP over several GPUs.

    ## Fix safety

    Display only: kbitlint does not know which devices can hold the weights.

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

    def check_source(self, source: SourceFacts, context: TrainingContext) -> Iterator[Violation]:
        """Yield one violation for each map that the load, or accelerate at training, refuses on every path."""
        refused = {
            training.model_id: all(t.loop is Loop.TRAINER for t in trained.paths)
            for trained in source.trained()
            for training in trained.paths
        }
        for call, steps in source.steps_at(Action.LOAD):
            argument = call.argument("device_map")
            if argument is None:
                continue
            loads = [_refuses(step) for step in steps]
            trains = [refused.get(step.model_id, False) and "disk" in _devices(step) and step.before.kbit for step in steps]
            if all(loads) or all(trains):
                yield self.violation(
                    "from_pretrained refuses to put a part of a quantized model on the CPU or the disk"
                    if all(loads)
                    else "a part of the model lies on disk, and accelerate refuses to train a quantized model so",
                    source.at_line(argument.whole.line, "device_map"),
                    surface=Surface.SOURCE,
                    evidence={"devices": sorted(_devices(steps[0]))},
                    fix=Fix("load it where all of it fits", Safety.DISPLAY),
                )

    def check_model(self, model: ModelFacts, context: TrainingContext) -> Iterator[Violation]:
        """Yield at most one violation, on the model as a whole."""
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


def _devices(step: Step) -> set[str]:
    """Return the devices that the map of a load certainly names; empty if the file does not tell all of its keys."""
    given = step.call.within("device_map")
    if given is None or not given.complete:
        return set()
    return {str(item.value) for item in given.arguments if isinstance(item.value, (int, str))}


def _refuses(step: Step) -> bool:
    """Return whether transformers' quantizer refuses the map. It accepts the CPU only for a whole model."""
    config, devices = step.before.quantization, _devices(step)
    allowed = config.value("llm_int8_enable_fp32_cpu_offload", False) if isinstance(config, Call) else None  # noqa: FBT003  # the argument's default
    return step.before.method == "bitsandbytes" and allowed is False and devices != {"cpu"} and bool(devices & {"cpu", "disk"})
