"""Rule KB303: unreachable-adapter."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from kbitlint.rule import Meta, Rule, Unchecked
from kbitlint.violation import Consequence, Location, Severity, Surface, Violation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kbitlint.context import TrainingContext
    from kbitlint.facts.trace import GradientFacts, TraceFacts


class UnreachableAdapter(Rule):
    """Trainable parameters that the forward pass uses and that never receive a gradient.

    ## What it does

    Runs a training step without weights. Reports trainable parameters, mostly of adapters, that the forward pass uses
    and the backward pass does not reach. Names the module that cuts the gradient: it runs under `no_grad`, detaches its
    output, or returns a value on which the loss does not depend. Before adapters are attached, a scalar on each
    quantized layer represents them.

    ## Why is this bad?

    Training runs, and the loss may even fall, but these parameters keep their initial values: `lora_B` stays zero. It
    is an error if the class itself would let the gradient pass, or if no parameter gets a gradient.

    It is an info if the class cuts the gradient by design (an indexer that only selects, a router's top-k). An adapter
    there costs memory and learns nothing. Under DDP with `find_unused_parameters=False` it is an error again, because
    DDP waits for the gradient forever.

    ## Example

    A wrapper that runs the lower half of the layers under `torch.no_grad()` although LoRA sits on all of them.

    ## Fix

    It depends on the cause: remove the cut, or leave the modules out of the adapter's targets.

    ## Fix safety

    No fix is offered: the cut is in code.

    ## References

    - https://github.com/huggingface/peft/issues/137
    - https://github.com/huggingface/peft/issues/2826
    - https://github.com/huggingface/transformers/issues/42489
    """

    meta: ClassVar[Meta] = Meta(
        code="KB303",
        slug="unreachable-adapter",
        severity=Severity.ERROR,
        consequence=Consequence.TRAINS_NOTHING,
        since="0.1.0",
    )

    def check_trace(self, trace: TraceFacts, context: TrainingContext) -> Iterator[Violation]:
        """Yield one violation for each module that cuts the gradient of parameters in it."""
        if not trace.gradients:
            raise Unchecked("the step stops before a gradient could arrive")
        nothing = not any(facts.arrives for facts in trace.gradients)
        raises = "does not require grad" in (trace.failure or "")  # the backward pass does, if the loss depends on nothing
        cut: dict[tuple[str, str, bool], list[GradientFacts]] = {}
        for facts in trace.gradients:
            if facts.cut is not None and facts.runs and not facts.reentrant:
                cut.setdefault((facts.at, facts.cut.value, facts.inherent and not nothing), []).append(facts)
        for (module, state, inherent), found in cut.items():
            what = "adapters on quantized layers in it" if found[0].virtual else "trainable parameters in it"
            waits = inherent and context.waits_for_every_gradient and not found[0].virtual
            yield self.violation(
                f"no gradient reaches {what}: the module {state}" + (", as its class is written" if inherent else ""),
                Location(module),
                surface=Surface.TRACE,
                severity=Severity.INFO if inherent and not waits else Severity.ERROR,
                consequence=Consequence.FAILS if waits or raises else Consequence.TRAINS_NOTHING,
                evidence={"parameters": len(found), "first": found[0].path, "inherent": inherent},
            )
