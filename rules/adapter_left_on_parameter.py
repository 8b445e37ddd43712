"""KB606."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from kbitlint.rule import Meta, Rule
from kbitlint.violation import Consequence, Fix, Location, Safety, Severity, Surface, Violation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kbitlint.context import TrainingContext
    from kbitlint.facts.trace import TraceFacts


class AdapterLeftOnParameter(Rule):
    """An adapter of a parameter that stays on it after each forward pass.

    ## What it does

    Runs a training step without weights and reports each parameter that has more parametrizations after it than before.

    ## Why is this bad?

    PEFT adapts a parameter (`target_parameters`) by a parametrization that it registers for the time of a forward pass.
    On a parameter that already has one, because `bitsandbytes.nn.parametrize` unpacks it so, PEFT 0.21 looks for a
    class that it no longer uses and leaves its own where it is. The next forward pass, or the recomputation of a
    checkpoint, raises `only Tensors of floating point dtype can require gradients`; a float parameter would get its
    adapter once more with every step.

    ## Example

    `LoraConfig(target_parameters=["model.layers.0.mlp.experts.gate_up_proj"])` on experts that are packed in place.

    ## Fix

    Attach the adapters to modules (`target_modules`), or leave the experts unpacked.

    ## Fix safety

    Nothing is applied: which layers learn is the user's to say.

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
        """One violation for each parameter."""
        for path in trace.grown:
            yield self.violation(
                "the adapter of this parameter is still on it after the step: the next one raises",
                Location(path),
                surface=Surface.TRACE,
                fix=Fix("adapt modules (target_modules), or leave these experts unpacked", Safety.DISPLAY),
            )
