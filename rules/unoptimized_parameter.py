"""Rule KB706: unoptimized-parameter."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from kbitlint.rule import Meta, Rule, Unchecked
from kbitlint.violation import Consequence, Fix, Location, Safety, Severity, Surface, Violation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kbitlint.context import TrainingContext
    from kbitlint.facts.ranks import RanksFacts
    from kbitlint.facts.source import SourceFacts


class UnoptimizedParameter(Rule):
    """Trainable parameters that the optimizer does not hold.

    ## What it does

    Compares the parameters in the optimizer's groups with those of the model that it is about to train. Reports each
    trainable parameter that the optimizer does not hold: an error. If there is none, reports how many tensors in the
    optimizer are not (or no longer) parameters of the model: a warning.

    In a script, reports an optimizer that is built before the adapters on every path, and that never receives their
    parameters.

    ## Why is this bad?

    A parameter outside the optimizer gets a gradient in every step and never changes, without an error. It happens if
    adapters are attached, or parameters are replaced or unfrozen, after the optimizer was built.

    ## Example

    `optimizer = AdamW(model.parameters())`, then `get_peft_model(model, config)`, then
    `Trainer(..., optimizers=(optimizer, None))`.

    ## Fix

    Build the optimizer last, or let Trainer build it.

    ## Fix safety

    Display only: the group of each parameter is the user's choice.

    ## References

    - https://github.com/huggingface/peft/issues/1142
    - https://github.com/huggingface/transformers/issues/26498
    """

    meta: ClassVar[Meta] = Meta(
        code="KB706",
        slug="unoptimized-parameter",
        severity=Severity.ERROR,
        consequence=Consequence.TRAINS_NOTHING,
        since="0.1.0",
    )

    def check_source(self, source: SourceFacts, context: TrainingContext) -> Iterator[Violation]:
        """Yield one violation for each training whose optimizer is older than the adapters on every path."""
        for trained in source.trained():
            early = trained.paths[0].early_optimizer
            if early is not None and trained.certain and all(training.early_optimizer for training in trained.paths):
                yield self.violation(
                    "the optimizer was built before the adapters, and holds none of them",
                    source.at(early),
                    surface=Surface.SOURCE,
                    fix=Fix("build the optimizer after the model is complete", Safety.DISPLAY),
                )

    def check_ranks(self, ranks: RanksFacts, context: TrainingContext) -> Iterator[Violation]:
        """Yield one violation for each missing parameter, else one for tensors that the model does not have."""
        optimizer = ranks.optimizer
        if optimizer is None:
            raise Unchecked("no optimizer whose parameters could be told apart is at hand")
        evidence = {"held": optimizer.held, "strangers": optimizer.strangers}
        fix = Fix("build the optimizer after the model is complete", Safety.DISPLAY)
        for path in optimizer.missing:
            yield self.violation(
                "the optimizer does not hold this trainable parameter",
                Location(path),
                surface=Surface.RANKS,
                evidence=evidence,
                fix=fix,
            )
        if optimizer.strangers and not optimizer.missing:
            yield self.violation(
                f"the optimizer holds {optimizer.strangers} tensors that are no parameter of the model",
                Location(),
                surface=Surface.RANKS,
                severity=Severity.WARNING,
                consequence=Consequence.COSTS_MEMORY,
                evidence=evidence,
                fix=fix,
            )
