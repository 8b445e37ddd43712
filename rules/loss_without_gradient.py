"""Rule KB718: loss-without-gradient."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from kbitlint.facts.own_loops import Act, Origin
from kbitlint.rule import Meta, Rule
from kbitlint.violation import Consequence, Fix, Safety, Severity, Surface, Violation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kbitlint.context import TrainingContext
    from kbitlint.facts.own_loops import LoopAct
    from kbitlint.facts.source import SourceFacts


class LossWithoutGradient(Rule):
    """A backward pass from a value that no gradient flows through.

    ## What it does

    Reads the loops that a script writes itself. Reports `backward()` on a loss that was made by `.item()` or `.detach()`, that
    was computed under `torch.no_grad()` or `torch.inference_mode()`, or that is None because the model gets no labels.

    ## Why is this bad?

    The first step raises: a number has no `backward`, None has none, and a tensor without a graph `does not require grad`.

    ## Example

    `loss = model(**batch).loss.item()` and `loss.backward()`.

    ## Fix

    Call `backward()` on the loss itself. Pass `labels`, or compute the loss from the logits.

    ## Fix safety

    Display only.

    ## References

    - https://github.com/meta-llama/llama/issues/122
    - https://github.com/huggingface/peft/issues/1980
    """

    meta: ClassVar[Meta] = Meta(
        code="KB718",
        slug="loss-without-gradient",
        severity=Severity.ERROR,
        consequence=Consequence.FAILS,
        since="0.1.0",
    )

    def check_source(self, source: SourceFacts, context: TrainingContext) -> Iterator[Violation]:
        """Yield one violation for each such backward pass."""
        known = _headed(source)
        for loop in source.own_loops:
            for one in loop.acts:
                if one.act is Act.BACKWARD and one.origin is not None and _is_certain(one, known):
                    yield self.violation(
                        f"the loss {one.origin.value}",
                        source.at_line(one.line, one.name),
                        surface=Surface.SOURCE,
                        fix=Fix("call backward on a loss that the model computes with gradients", Safety.DISPLAY),
                    )


def _is_certain(one: LoopAct, known: set[str]) -> bool:
    return one.origin is not Origin.WITHOUT_LABELS or one.model in known


def _headed(source: SourceFacts) -> set[str]:
    """Return the names of trained models of transformers, which compute a loss from labels only."""
    return {
        training.name
        for path in source.paths
        for training in path.trainings
        if training.model.load is not None and ".AutoModelFor" in training.model.load.callee
    }
