"""Rule KB533: overruled-checkpointing-request."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from kbitlint.facts.source import Action
from kbitlint.rule import Meta, Rule
from kbitlint.violation import Consequence, Fix, Safety, Severity, Surface, Violation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kbitlint.context import TrainingContext
    from kbitlint.facts.source import ExecutionPath, SourceFacts
    from kbitlint.facts.values import Argument, Call, Span


class OverruledCheckpointingRequest(Rule):
    """A request for reentrant or other checkpointing that a later call overrules.

    ## What it does

    Reports `use_reentrant` in a call that enables checkpointing, if a later call enables it again with another value before
    the training. It is an info: the later value may be the better one.

    ## Why is this bad?

    The last call decides how layers checkpoint. A Trainer enables checkpointing when training starts, and transformers 5 does
    so without reentry unless its arguments ask for it. The request has no effect.

    ## Example

    `prepare_model_for_kbit_training(model, gradient_checkpointing_kwargs={"use_reentrant": True})` before
    `SFTTrainer(args=SFTConfig(gradient_checkpointing=True))`.

    ## Fix

    Pass the kwargs to the call that decides, or to none.

    ## Fix safety

    Display only: both values may be meant.

    ## References

    - https://github.com/huggingface/trl/issues/5217
    - https://github.com/huggingface/transformers/issues/42489
    """

    meta: ClassVar[Meta] = Meta(
        code="KB533",
        slug="overruled-checkpointing-request",
        severity=Severity.INFO,
        consequence=Consequence.HARMLESS,
        since="0.2.0",
    )

    def check_source(self, source: SourceFacts, context: TrainingContext) -> Iterator[Violation]:
        """Yield one violation for each request that is overruled on every path that trains the model."""
        found: dict[Span, list[bool]] = {}
        places: dict[Span, Argument] = {}
        for path in source.paths:
            for call, argument, overruled in _requests(path):
                found.setdefault(call.span, []).append(overruled)
                places[call.span] = argument
        for span, outcomes in found.items():
            if all(outcomes):
                yield self.violation(
                    "a later call enables checkpointing with another use_reentrant, which holds",
                    source.at_line(places[span].whole.line, "use_reentrant"),
                    surface=Surface.SOURCE,
                    fix=Fix("pass the kwargs to the call that decides", Safety.DISPLAY),
                )


def _requests(path: ExecutionPath) -> Iterator[tuple[Call, Argument, bool]]:
    """Yield each written request of a path that trains its model, and whether another value holds at the training."""
    for _, training, steps in path.histories():
        how = training.model.checkpointing if training is not None else None
        for step in steps if how is not None and how.enabled and how.reentry.value in ("True", "False") else ():
            kwargs = step.call.within("gradient_checkpointing_kwargs")
            argument = kwargs.argument("use_reentrant") if kwargs is not None else None
            if step.action in (Action.PREPARE, Action.CHECKPOINT) and argument is not None and isinstance(argument.value, bool):
                yield step.call, argument, how is not None and how.by != step.call and str(argument.value) != how.reentry.value
