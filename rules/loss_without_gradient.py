"""Rule KB718: loss-without-gradient."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from kbitlint.facts.own_loops import Act, Origin
from kbitlint.rule import Meta, Rule
from kbitlint.violation import Consequence, Fix, Safety, Severity, Surface, Violation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kbitlint.context import TrainingContext
    from kbitlint.facts.own_loops import DeadLoss, LoopAct
    from kbitlint.facts.source import SourceFacts
    from kbitlint.facts.values import Call, Span
    from kbitlint.violation import Location


class LossWithoutGradient(Rule):
    """A backward pass from a value that no gradient flows through.

    ## What it does

    Follows the losses of a script to `backward()`. Reports one that was made by `.item()` or `.detach()`, that was computed
    under `torch.no_grad()`, `torch.inference_mode()` or after `torch.set_grad_enabled(False)`, that comes from a forward
    which the script wraps in one of them, or that is None because the model gets no labels. Reports a `compute_loss` of the
    script's own Trainer that returns such a loss on every way. Reports a second `backward()` of one forward pass, whose
    graph the first has freed.

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
        known, lines = _headed(source), set()
        for loop in source.own_loops:
            for one in loop.acts:
                if one.act is Act.BACKWARD and one.origin is not None and _is_certain(one, known):
                    lines.add(one.line)
                    yield self._report(one.origin, source.at_line(one.line, one.name))
        for loss in _dead(source):
            if loss.call.span.line not in lines:
                lines.add(loss.call.span.line)
                yield self._report(loss.origin, source.at_line(loss.call.span.line, "backward"), loss.by)
        for call in _silenced(source):
            yield self._report(Origin.FORWARD, source.at_line(call.span.line, "forward"))

    def _report(self, origin: Origin, location: Location, by: Call | None = None) -> Violation:
        fixes = {
            Origin.USED: "go backward once, or pass retain_graph=True to the first",
            Origin.FORWARD: "leave the model's own forward in place",
        }
        return self.violation(
            f"the loss {origin.value}",
            location,
            surface=Surface.SOURCE,
            evidence={} if by is None else {"by_line": by.span.line},
            fix=Fix(fixes.get(origin, "call backward on a loss that the model computes with gradients"), Safety.DISPLAY),
        )


def _dead(source: SourceFacts) -> Iterator[DeadLoss]:
    """Yield each backward pass that raises on every path that reaches it."""
    dead: dict[Span, DeadLoss] = {}
    alive: set[Span] = set()
    for path in source.paths:
        here = {loss.call.span: loss for loss in path.losses}
        alive |= {training.call.span for training in path.trainings} - set(here)
        dead |= here
    yield from (loss for span, loss in dead.items() if span not in alive)


def _silenced(source: SourceFacts) -> Iterator[Call]:
    """Yield each assignment to the forward of a model that a Trainer of transformers trains on every path.

    Trainers of TRL may call the parts of the model by themselves. AdaLoRA adds a penalty of its own to the loss.
    """
    for trained in source.trained():
        silent = {model.silenced for model in trained.models}
        kinds = {getattr(model.adapters.config, "callee", "") for model in trained.models if model.adapters is not None}
        plain = trained.call.callee.startswith("transformers.") and "peft.AdaLoraConfig" not in kinds
        if plain and None not in silent and trained.certain:
            yield from sorted((call for call in silent if call is not None), key=lambda call: call.span)[:1]


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
