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
    """A tensor of zeros, or an operator without a slope, that makes every gradient zero.

    ## What it does

    Runs a training step without weights, and follows the frozen parameters and buffers that hold zeros only: through
    products, sums, casts and views, forward and backward. Reports each that makes the gradient of a trainable parameter zero.

    Also reports a hook of a parameter that makes each gradient zero or drops it; `round`, `floor`, `ceil`, `trunc` and
    `sign`, whose derivative is zero everywhere; and, if nothing else learns, a product with the number 0.

    A parameter that trains and begins with zeros is such a tensor only if its own gradient is zero too: two factors of zeros
    hold each other there. A buffer that the step writes is none.

    ## Why is this bad?

    A gradient arrives, and it is zero in every step. Training runs, the loss does not move, and the parameter keeps its
    initial value. It is a warning if other parameters do learn.

    ## Example

    The two scales of RandLoRA, both set to zero by a loop over the new parameters.

    UniLoRA of PEFT 0.21 on packed layers: it casts its scales, which are below 1, to the dtype of the packed bytes, and a byte
    cannot hold them. A gate of cross-attention that starts at zero and is frozen with the base, with adapters behind it.

    ## Fix

    Give the tensor its values, let it train, or adapt other modules. Pass the gradient around the rounding
    (`x + (x.round() - x).detach()`). Scale an adapter with `alpha / r`: `alpha // r` is 0 below `r`.

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
        zeroed: dict[tuple[str, str], list[str]] = {}
        for gradient in arriving:
            if gradient.zeroed_by and not gradient.path.startswith(dead):  # the factors themselves are another rule's
                zeroed.setdefault((gradient.zeroed_by, gradient.zeroing), []).append(gradient.path)
        for (place, operator), paths in zeroed.items():
            if operator == "mul" and (not nothing or trace.model.towers):  # a term that keeps unused modules in the graph
                continue
            yield self.violation(
                _MESSAGES.get(operator, f"{operator} has a derivative of zero: no gradient passes it in any step"),
                Location("" if place == "the model" else place),
                surface=Surface.TRACE,
                severity=None if nothing else Severity.WARNING,
                evidence={"parameters": len(paths), "first": paths[0]},
                fix=Fix(_FIXES.get(operator, "pass the gradient around it: x + (x.round() - x).detach()"), Safety.DISPLAY),
            )


_MESSAGES = {
    "": "the frozen tensor holds zeros only, so that the gradients it multiplies are zero in every step",
    "held": "the parameter holds zeros only and cannot leave them: its own gradient, and each that it multiplies, stays zero",
    "hook": "a hook of the parameter leaves nothing of its gradient in any step",
    "mul": "the module multiplies with the number 0, so that the gradients are zero in every step",
}
_FIXES = {
    "": "give the tensor its values, let it train, or adapt other modules",
    "held": "give one of the factors random values, as the adapter's own initialization does",
    "hook": "remove the hook, or let it pass the part of the gradient that is to learn",
    "mul": "give the scale a value other than 0, such as alpha / r",
}
