"""Rule KB606: adapter-left-on-parameter."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from kbitlint.rule import Meta, Rule
from kbitlint.violation import Consequence, Fix, Location, Safety, Severity, Surface, Violation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kbitlint.context import TrainingContext
    from kbitlint.facts.trace import TraceFacts


class AdapterLeftOnParameter(Rule):
    """An adapter that stays on its parameter after each forward pass.

    ## What it does

    Runs a training step without weights. Reports each parameter that has more parametrizations after the step than
    before.

    ## Why is this bad?

    PEFT adapts a parameter (`target_parameters`) through a parametrization that it registers for one forward pass. A
    parameter that is packed in place already has one: `bitsandbytes.nn.parametrize` uses it to unpack the parameter. In
    that case PEFT 0.21 looks for a class that it no longer uses, and does not remove its own parametrization.

    The next forward pass, or the recomputation of a checkpoint, raises `only Tensors of floating point dtype can
    require gradients`. A float parameter would get one more adapter in every step.

    ## Example

    `LoraConfig(target_parameters=["model.layers.0.mlp.experts.gate_up_proj"])` on experts that are packed in place.

    ## Fix

    Attach the adapters to modules (`target_modules`), or leave the experts unpacked.

    ## Fix safety

    Display only: the user decides which layers learn.

    ## References

    - https://github.com/bitsandbytes-foundation/bitsandbytes/pull/1965
    - https://github.com/huggingface/peft/issues/3009
    """

    meta: ClassVar[Meta] = Meta(
        code="KB606",
        slug="adapter-left-on-parameter",
        severity=Severity.ERROR,
        consequence=Consequence.FAILS,
        since="0.1.0",
    )

    def check_trace(self, trace: TraceFacts, context: TrainingContext) -> Iterator[Violation]:
        """Yield one violation for each parameter that keeps its adapter."""
        for path in trace.grown:
            yield self.violation(
                "the adapter of this parameter is still on it after the step: the next one raises",
                Location(path),
                surface=Surface.TRACE,
                fix=Fix("adapt modules (target_modules), or leave these experts unpacked", Safety.DISPLAY),
            )
