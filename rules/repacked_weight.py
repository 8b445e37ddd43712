"""Rule KB334: repacked-weight."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from kbitlint.rule import Meta, Rule
from kbitlint.violation import Consequence, Fix, Location, Safety, Severity, Surface, Violation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kbitlint.context import TrainingContext
    from kbitlint.facts.trace import TraceFacts


class RepackedWeight(Rule):
    """A packed weight that an evaluation has repacked for a kernel without gradients, before training.

    ## What it does

    In a traced step, reports each weight that a pass in eval mode has repacked for a kernel of the CPU, if the input of its
    layer requires a gradient.

    ## Why is this bad?

    On CPUs with AVX512-BF16, bitsandbytes 0.50 repacks a 4-bit weight in eval mode, if its kernel can be loaded, and does not
    turn it back. No gradient flows through the kernel. The step then runs on the part of each gradient that goes around these
    layers, or raises at their biases. A GPU has no such kernel.

    ## Example

    `trainer.evaluate()` before `trainer.train()`, or `model.eval()` and `model.generate(...)` before the training, on a CPU.

    ## Fix

    Load the model again, and evaluate it after its training.

    ## Fix safety

    Display only: the order of the calls is yours.

    ## References

    - https://github.com/bitsandbytes-foundation/bitsandbytes/blob/main/bitsandbytes/nn/modules.py
    """

    meta: ClassVar[Meta] = Meta(
        code="KB334",
        slug="repacked-weight",
        severity=Severity.ERROR,
        consequence=Consequence.TRAINS_WRONG,
        since="0.1.0",
    )

    def check_trace(self, trace: TraceFacts, context: TrainingContext) -> Iterator[Violation]:
        """Yield one violation for each repacked weight through which a gradient has to go."""
        for path in trace.cutting:
            yield self.violation(
                "bitsandbytes repacked the weight for the CPU's inference kernel, through which no gradient flows",
                Location(path),
                surface=Surface.TRACE,
                fix=Fix("load the model again, and evaluate it after its training", Safety.DISPLAY),
            )
