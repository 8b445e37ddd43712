"""Rule KB720: device-map-ignores-rank."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from kbitlint.facts.source import Action
from kbitlint.facts.values import Call
from kbitlint.rule import Meta, Rule
from kbitlint.violation import Consequence, Fix, Safety, Severity, Surface, Violation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kbitlint.context import TrainingContext
    from kbitlint.facts.source import SourceFacts, Step

#: strong signs of a launch with several ranks
STRONG = ("LOCAL_RANK", "init_process_group", "DistributedDataParallel", "DDP")


def _same_everywhere(value: object) -> bool:
    if isinstance(value, str):
        return value in ("auto", "balanced", "balanced_low_0", "sequential")
    constant = isinstance(value, Call) and value.complete and len(value.arguments) == 1
    return constant and isinstance(value, Call) and value.arguments[0].value in (0, "cuda:0", "cuda")


class DeviceMapIgnoresRank(Rule):
    """A device map that places the model of every rank on the same devices.

    ## What it does

    Reports `device_map='auto'` (or `balanced`, `balanced_low_0`, `sequential`), and a map with one constant device. The
    map must be the same on every path of a script for several ranks. Reports the load of a quantized model without a map,
    or with the current device, before anything has set the device of the rank: `TrainingArguments` and `Accelerator` do.

    It is an error for a string such as `'auto'`, if the script wraps the model in DDP itself. It is a warning for a
    constant device. It is also a warning if the script only contains signs of a distributed launch, such as reading
    LOCAL_RANK, or if `--training` or a rehearsed launcher names several processes.

    ## Why is this bad?

    Each process sees all devices, so `auto` spreads every copy over all of them. accelerate refuses to train such a
    model in a distributed run. A constant device puts all copies on one GPU. Without a map, a quantized model is loaded
    onto the current device, which is GPU 0 in each process until it is set. accelerate refuses such copies as well.

    ## Example

    `from_pretrained(name, device_map='auto')` followed by `DistributedDataParallel(model)`.

    ## Fix

    Use `device_map={'': PartialState().process_index}`, or `{'': int(os.environ['LOCAL_RANK'])}`.

    ## Fix safety

    Unsafe: the model is placed on other devices. Display only if the map is not written in the load itself.

    ## References

    - https://github.com/huggingface/peft/issues/414
    - https://github.com/huggingface/accelerate/issues/1515
    - https://github.com/artidoro/qlora/issues/137
    """

    meta: ClassVar[Meta] = Meta(
        code="KB720",
        slug="device-map-ignores-rank",
        severity=Severity.ERROR,
        consequence=Consequence.FAILS,
        since="0.1.0",
    )

    def check_source(self, source: SourceFacts, context: TrainingContext) -> Iterator[Violation]:
        """Yield one violation for each load whose map is the same on every rank, on every path."""
        strong = [mention for mention in source.distributed if mention.launcher or mention.what in STRONG]
        launched = [f"the launch of {context.world_size} processes"] if (context.world_size or 1) > 1 else []
        if not source.distributed and not launched:
            return
        wrapped = {step.model_id for path in source.paths for step in path.steps if step.detail == "ddp"}
        for call, steps in source.steps_at(Action.LOAD):
            argument = call.argument("device_map")
            if all(_on_first(source, step) for step in steps):
                yield from self._unplaced(source, call, [one.what for one in strong if one.concerns(call.span.line)] + launched)
            if argument is None or not _same_everywhere(argument.value):
                continue
            maps = {repr(step.call.value("device_map")) for step in steps}
            certain = all(step.model_id in wrapped for step in steps)
            signs = [*(mention.what for mention in strong if mention.concerns(argument.whole.line)), *launched]
            if len(maps) > 1 or not (certain or signs):
                continue
            fails = certain and isinstance(argument.value, str)
            call_of, imported = source.importing("accelerate.PartialState")
            edits = source.replace(argument.span, f'{{"": {call_of}().process_index}}') + imported
            inside = call.span.start <= argument.span.start < call.span.end
            what = (signs or [source.distributed[0].what])[0]
            title = "put it on the device of its rank"
            yield self.violation(
                f"every rank places the model by the same map, and {what} tells of several",
                source.at_line(argument.whole.line, "device_map"),
                surface=Surface.SOURCE,
                severity=Severity.ERROR if fails else Severity.WARNING,
                consequence=None if fails else Consequence.FRAGILE,
                evidence={"signs": [mention.what for mention in source.distributed]},
                fix=Fix(title, Safety.UNSAFE, edits) if inside else Fix(title, Safety.DISPLAY),
            )

    def _unplaced(self, source: SourceFacts, call: Call, signs: list[str]) -> Iterator[Violation]:
        """Yield the load of a quantized model by every rank of a run on its first device."""
        sharded = [
            one
            for path in source.paths
            for one in path.trainings
            if one.model.load is not None and one.model.load.span == call.span and (one.fsdp is not False or one.zero_stage)
        ]
        if not signs or sharded:
            return
        call_of, imported = source.importing("accelerate.PartialState")
        edits = source.set_argument(call, "device_map", f'{{"": {call_of}().process_index}}')
        yield self.violation(
            f"every rank loads the model onto GPU 0, and {signs[0]} tells of several: nothing has set its device yet",
            source.at(call),
            surface=Surface.SOURCE,
            severity=Severity.WARNING,
            consequence=Consequence.FRAGILE,
            evidence={"signs": signs},
            fix=Fix("put it on the device of its rank", Safety.UNSAFE, edits + imported),
        )


def _on_first(source: SourceFacts, step: Step) -> bool:
    """Return whether a load puts a quantized model on the current device, before a call could set it."""
    argument, state = step.call.argument("device_map"), step.before
    if state.placed or state.method != "bitsandbytes" or not step.call.complete:
        return False
    return argument is None or source.code_of(argument.span).endswith("current_device()}")
