"""Rule KB315: zeroed-gradient."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from kbitlint.rule import Meta, Rule, Unchecked
from kbitlint.violation import Consequence, Fix, Location, Safety, Severity, Surface, Violation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kbitlint.context import TrainingContext
    from kbitlint.facts.trace import TraceFacts


class ZeroedGradient(Rule):
    """A frozen tensor of zeros by which every gradient of trainable parameters is multiplied.

    ## What it does

    Runs a training step without weights, and follows the frozen parameters and buffers that hold zeros only: through
    products, sums, casts and views, forward and backward. Reports each that makes the gradient of a trainable parameter zero.

    A parameter that trains is no such tensor, even if it begins with zeros, and neither is a buffer that the step writes.

    ## Why is this bad?

    A gradient arrives, and it is zero in every step. Training runs, the loss does not move, and the parameter keeps its
    initial value. It is a warning if other parameters do learn.

    ## Example

    UniLoRA of PEFT 0.21 on packed layers: it casts its scales, which are below 1, to the dtype of the packed bytes, and a byte
    cannot hold them. A gate of cross-attention that starts at zero and is frozen with the base, with adapters behind it.

    ## Fix

    Give the tensor its values, let it train, or adapt other modules.

    ## Fix safety

    Display only: which of the three is the user's choice.

    ## References

    - https://github.com/huggingface/peft/issues/1402
    """

    meta: ClassVar[Meta] = Meta(
        code="KB315",
        slug="zeroed-gradient",
        severity=Severity.ERROR,
        consequence=Consequence.TRAINS_NOTHING,
        since="0.2.0",
    )

    def check_trace(self, trace: TraceFacts, context: TrainingContext) -> Iterator[Violation]:
        """Yield one violation for each frozen tensor of zeros that keeps gradients at zero."""
        if not trace.gradients:
            raise Unchecked("the step stops before a gradient could arrive")
        dead = tuple(f"{layer.path}." for layer in trace.model.adapted if layer.dead)
        arriving = [gradient for gradient in trace.gradients if gradient.arrives]
        nothing = all(gradient.zeroed_by for gradient in arriving)
        zeroed: dict[str, list[str]] = {}
        for gradient in arriving:
            if gradient.zeroed_by and not gradient.path.startswith(dead):  # the factors themselves are another rule's
                zeroed.setdefault(gradient.zeroed_by, []).append(gradient.path)
        for tensor, paths in zeroed.items():
            yield self.violation(
                "the frozen tensor holds zeros only, so that the gradients it multiplies are zero in every step",
                Location(tensor),
                surface=Surface.TRACE,
                severity=None if nothing else Severity.WARNING,
                evidence={"parameters": len(paths), "first": paths[0]},
                fix=Fix("give the tensor its values, let it train, or adapt other modules", Safety.DISPLAY),
            )
