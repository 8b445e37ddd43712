"""Rule KB320: unregistered-parameter."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from kbitlint.rule import Meta, Rule
from kbitlint.violation import Consequence, Fix, Location, Safety, Severity, Surface, Violation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kbitlint.context import TrainingContext
    from kbitlint.facts.trace import TraceFacts


class UnregisteredParameter(Rule):
    """A tensor that receives a gradient and is no parameter of the model.

    ## What it does
    Runs a training step without weights. Reports tensors that require grad, that attributes of the modules hold, and at which
    a gradient arrives, although `model.parameters()` does not have them. Modules in a plain list or dictionary count as well.

    ## Why is this bad?
    An optimizer over `model.parameters()` does not hold such a tensor, and `state_dict` does not either. The tensor keeps its
    initial value, and nothing saves it. It is a warning if other parameters learn: a frozen helper may be kept out on purpose.

    ## Example
    `self.adapters = [nn.Linear(64, 8), nn.Linear(8, 64)]`, where `nn.ModuleList` is needed.
    `self.prompt = torch.randn(8, 64, requires_grad=True)`, where `nn.Parameter` is needed.

    ## Fix
    Use `nn.ModuleList`, `nn.ModuleDict`, `nn.ParameterList` or `nn.Parameter`. If the tensor should not train, call
    `requires_grad_(False)`.

    ## Fix safety
    Display only: the cause is in code.

    ## References
    - https://github.com/pytorch/pytorch/issues/59925
    - https://github.com/pytorch/pytorch/issues/715
    """

    meta: ClassVar[Meta] = Meta(
        code="KB320",
        slug="unregistered-parameter",
        severity=Severity.ERROR,
        consequence=Consequence.TRAINS_NOTHING,
        since="0.2.0",
    )

    def check_trace(self, trace: TraceFacts, context: TrainingContext) -> Iterator[Violation]:
        """Yield one violation for each tensor."""
        learns = trace.model.trainable and any(gradient.arrives for gradient in trace.gradients)
        for path in trace.unregistered:
            yield self.violation(
                "a gradient arrives at a tensor that is no parameter of the model: the optimizer does not hold it",
                Location(path),
                surface=Surface.TRACE,
                severity=Severity.WARNING if learns else None,
                fix=Fix("register it: nn.Parameter, nn.ModuleList or nn.ModuleDict", Safety.DISPLAY),
            )
