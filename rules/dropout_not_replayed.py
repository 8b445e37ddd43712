"""Rule KB542: dropout-not-replayed."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from kbitlint.facts.values import Argument, Call
from kbitlint.rule import Meta, Rule
from kbitlint.violation import Consequence, Fix, Safety, Severity, Surface, Violation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kbitlint.context import TrainingContext
    from kbitlint.facts.source import SourceFacts, Training


class DropoutNotReplayed(Rule):
    """Checkpointed layers recompute with another dropout mask.

    ## What it does

    Reports `preserve_rng_state=False` for the checkpointing of layers, in a training of adapters with dropout.

    ## Why is this bad?

    Checkpointing computes each layer a second time for the backward pass. Without the state of the random numbers the
    second pass draws another mask, and gradients belong to another function than the loss. With a dropout of 0.3 their
    cosine with the right gradients is 0.66.

    ## Example

    `gradient_checkpointing_kwargs={'use_reentrant': False, 'preserve_rng_state': False}` with `lora_dropout=0.05`.

    ## Fix

    Leave `preserve_rng_state` at True, or set `lora_dropout=0`.

    ## Fix safety

    Safe: it only repeats the mask of the forward pass.

    ## References

    - https://github.com/allenai/OLMo/issues/702
    """

    meta: ClassVar[Meta] = Meta(
        code="KB542",
        slug="dropout-not-replayed",
        severity=Severity.ERROR,
        consequence=Consequence.TRAINS_WRONG,
        since="0.1.0",
    )

    def check_source(self, source: SourceFacts, context: TrainingContext) -> Iterator[Violation]:
        """Yield one violation for each such training on every path."""
        for trained in source.trained():
            given = [_forgotten(training) for training in trained.paths]
            argument = given[0]
            if argument is not None and None not in given:
                inside = source.code_of(argument.span) in ("False", "false")
                edits = source.replace(argument.span, "True" if source.dialect == "python" else "true") if inside else ()
                yield self.violation(
                    "the recomputation of a layer draws another dropout mask than its forward pass",
                    source.at_line(argument.whole.line, "preserve_rng_state"),
                    surface=Surface.SOURCE,
                    fix=Fix("preserve the state of the random numbers", Safety.SAFE if edits else Safety.DISPLAY, edits),
                )


def _forgotten(training: Training) -> Argument | None:
    """Return the argument that gives up the random state, if adapters with dropout are trained; None otherwise."""
    how, adapters = training.model.checkpointing, training.model.adapters
    config = adapters.config if adapters is not None else None
    kwargs = how.by.within(how.kwargs) if how.by is not None and how.kwargs and how.enabled else None
    if kwargs is None or not isinstance(config, Call):
        return None
    dropout = config.value("lora_dropout", 0.0)
    drops = isinstance(dropout, (int, float)) and dropout > 0
    return kwargs.argument("preserve_rng_state") if drops and kwargs.value("preserve_rng_state") is False else None
