"""Rule KB538: unallocated-adalora."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from kbitlint import lazy_patterns as re
from kbitlint.facts.values import Call
from kbitlint.rule import Meta, Rule
from kbitlint.violation import Consequence, Fix, Safety, Severity, Surface, Violation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kbitlint.context import TrainingContext
    from kbitlint.facts.source import SourceFacts

#: the class whose body calls the method, judged by the last class above it
_CLASS = re.compile(r"^class\s+(\w+)", re.MULTILINE)
_CALL = re.compile(r"\.update_and_allocate\(")


class UnallocatedAdalora(Rule):
    """AdaLoRA adapters whose ranks are never allocated.

    ## What it does

    Reports a training of adapters with an `AdaLoraConfig`, if nothing in the file calls `update_and_allocate`. A class
    of the file that calls it counts only if the file uses the class.

    ## Why is this bad?

    AdaLoRA moves ranks between layers in `update_and_allocate`. transformers' Trainer does not call it. Without the
    call every adapter keeps `init_r`, and `target_r`, `tinit` and `tfinal` have no effect.

    ## Example

    `get_peft_model(model, AdaLoraConfig(init_r=12, target_r=4, ...))`, then `Trainer(...).train()` without a callback.

    ## Fix

    Call `model.base_model.update_and_allocate(step)` in a callback's `on_optimizer_step`, and register the callback.

    ## Fix safety

    Display only: the place of the call depends on the training loop.

    ## References

    - https://github.com/huggingface/peft/issues/432
    - https://github.com/huggingface/peft/issues/1801
    """

    meta: ClassVar[Meta] = Meta(
        code="KB538",
        slug="unallocated-adalora",
        severity=Severity.WARNING,
        consequence=Consequence.TRAINS_WRONG,
        since="0.1.0",
    )

    def check_source(self, source: SourceFacts, context: TrainingContext) -> Iterator[Violation]:
        """Yield one violation for each training of such adapters on every path."""
        if _allocates(source):
            return
        for trained in source.trained():
            found = [model.adapters for model in trained.models]
            configs = [adapters.config if adapters is not None else None for adapters in found]
            if all(isinstance(config, Call) and config.callee == "peft.AdaLoraConfig" for config in configs):
                adapters = found[0]
                by = adapters.by if adapters is not None else trained.paths[0].call
                yield self.violation(
                    "no step calls update_and_allocate, so the ranks of AdaLoRA stay as they began",
                    source.at(by),
                    surface=Surface.SOURCE,
                    fix=Fix("call update_and_allocate in a registered callback", Safety.DISPLAY),
                )


def _allocates(source: SourceFacts) -> bool:
    """Return whether code of the file that may run calls the method."""
    for place in _CALL.finditer(source.text):
        above = list(_CLASS.finditer(source.text, 0, place.start()))
        line = source.text[source.line_start(place.start()) : place.start()]
        inside = bool(above) and line[:1].isspace()
        if not inside or source.times(above[-1][1]) > 1:
            return True
    return False
