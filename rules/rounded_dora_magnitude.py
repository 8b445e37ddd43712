"""Rule KB542: rounded-dora-magnitude."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from kbitlint.facts.source import Action
from kbitlint.rule import Meta, Rule
from kbitlint.violation import Consequence, Fix, Safety, Severity, Surface, Violation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kbitlint.context import TrainingContext
    from kbitlint.facts.source import SourceFacts, Step


class RoundedDoraMagnitude(Rule):
    """Magnitudes of DoRA in bfloat16, whose updates round away.

    ## What it does

    Reports `use_dora=True` that is attached with `autocast_adapter_dtype=False` to a base in bfloat16, packed to 4 bits or
    not.

    ## Why is this bad?

    The magnitudes start as the norms of the weight's columns, in the dtype of the weight. In bfloat16 the next number is
    0.4 % away. An update of a learning rate of 2e-4 is smaller than half of that, and rounds to nothing in every step. The
    adapters' matrices start near zero and still learn, so the loss falls and nothing shows.

    ## Example

    `get_peft_model(model, LoraConfig(use_dora=True), autocast_adapter_dtype=False)`.

    ## Fix

    Leave `autocast_adapter_dtype` at True: the adapters become float32.

    ## Fix safety

    Unsafe: the adapters take twice the memory.

    ## References

    - https://github.com/huggingface/trl/issues/7268
    """

    meta: ClassVar[Meta] = Meta(
        code="KB542",
        slug="rounded-dora-magnitude",
        severity=Severity.WARNING,
        consequence=Consequence.TRAINS_NOTHING,
        since="0.1.0",
    )

    def check_source(self, source: SourceFacts, context: TrainingContext) -> Iterator[Violation]:
        """Yield one violation for each such attachment on every path."""
        for call, steps in source.steps_at(Action.ATTACH):
            given = call.argument("autocast_adapter_dtype")
            if given is not None and all(_rounds(step) for step in steps):
                edits = source.remove_argument(given) if source.code_of(given.span) == "False" else ()
                yield self.violation(
                    "the magnitudes of DoRA stay bfloat16, and updates of usual size round away",
                    source.at_line(given.whole.line, "autocast_adapter_dtype"),
                    surface=Surface.SOURCE,
                    evidence={"method": str(steps[0].before.method)},
                    fix=Fix("leave autocast_adapter_dtype out", Safety.UNSAFE if edits else Safety.DISPLAY, edits),
                )


def _rounds(step: Step) -> bool:
    """Return whether the magnitudes that a step attaches are bfloat16 for certain."""
    load, config = step.before.load, step.call.within("peft_config")
    if load is None or config is None or config.value("use_dora") is not True:
        return False
    loaded = "bfloat16" in (load.dtype("dtype"), load.dtype("torch_dtype"))
    packed = step.before.method == "bitsandbytes" and step.before.bits == 4
    return step.call.value("autocast_adapter_dtype") is False and loaded and (packed or step.before.method is None)
