"""Rule KB302: stacked-input-grad-hooks."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from kbitlint.rule import Meta, Rule
from kbitlint.violation import Consequence, Edit, Fix, Location, Safety, Severity, Surface, Violation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kbitlint.context import TrainingContext
    from kbitlint.facts.model import ModelFacts
    from kbitlint.facts.model_state import ModelState
    from kbitlint.facts.source import SourceFacts
    from kbitlint.facts.values import Call


#: transformers 5 installs a hook with it
_ENABLE = "gradient_checkpointing_enable"


def _repeats(model: ModelState, call: Call) -> bool:
    """Return whether the preparation behind a call enables the same checkpointing again."""
    prepared = model.prepared
    return prepared is not None and prepared in model.hooks and call.span.start < prepared.span.start


class StackedInputGradHooks(Rule):
    """More than one hook that makes the output of the same module require grad.

    ## What it does

    Reports modules, usually input embeddings, with two or more forward hooks that set `requires_grad` on the output. In
    a script, reports each `enable_input_require_grads()` that repeats another call on every path.

    ## Why is this bad?

    Training is not affected: the second hook repeats the first. But `enable_input_require_grads()` overwrites the
    handles of older hooks, so `disable_input_require_grads()` cannot remove them. In a later stage the embeddings still
    require grad. The model then keeps activations that it does not need, and `loss.backward()` succeeds even if no
    parameter trains.

    ## Example

    `prepare_model_for_kbit_training(model)` alone leaves two hooks; a Trainer that enables checkpointing adds a third.

    ## Fix

    Keep the newest hook, which `disable_input_require_grads()` can remove. In a script, remove the repeated call.

    ## Fix safety

    Safe: one hook has the effect of several. Display only if the call is part of a larger statement.

    ## References

    - https://github.com/huggingface/peft/issues/313
    - https://github.com/huggingface/peft/issues/2299
    - https://github.com/huggingface/peft/issues/742
    """

    meta: ClassVar[Meta] = Meta(
        code="KB302",
        slug="stacked-input-grad-hooks",
        severity=Severity.INFO,
        consequence=Consequence.HARMLESS,
        since="0.1.0",
    )

    def check_model(self, model: ModelFacts, context: TrainingContext) -> Iterator[Violation]:
        """Yield one violation for each module with more than one hook."""
        for hooks in model.input_grad_hooks:
            if len(hooks.names) > 1:
                yield self.violation(
                    f"{len(hooks.names)} hooks make the same output require grad",
                    Location(hooks.path),
                    evidence={"hooks": list(hooks.names), "orphans": hooks.orphans},
                    fix=Fix("keep the newest hook", Safety.SAFE, (Edit("drop-input-grad-hooks", hooks.path),)),
                )

    def check_source(self, source: SourceFacts, context: TrainingContext) -> Iterator[Violation]:
        """Yield one violation for each ``enable_input_require_grads()`` that repeats another call on every path."""
        needed: set[Call] = set()
        repeated: dict[Call, Call] = {}
        for trained in source.trained():
            for model in trained.models:
                first = model.hooks[0] if model.hooks else None
                second = next((other for other in model.hooks if other != first), None)
                for call in model.hooks:
                    other = second if call == first else first
                    alone = call.callee == "enable_input_require_grads" and other is not None
                    if (alone or (call.callee == _ENABLE and other is not None and _repeats(model, call))) and model.certain:
                        repeated[call] = (other if alone else model.prepared) or call
                    else:
                        needed.add(call)
        for call, other in repeated.items():
            if call not in needed:
                edits = source.remove_line(call.span)
                yield self.violation(
                    f"the hook is installed already: {other.callee.rpartition('.')[2]} makes the same output require grad",
                    source.at(call),
                    surface=Surface.SOURCE,
                    fix=Fix("leave the call out", Safety.SAFE if edits else Safety.DISPLAY, edits),
                )
