"""Rule KB549: unloaded-adapters-saved."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from kbitlint.facts.source import Action
from kbitlint.rule import Meta, Rule
from kbitlint.violation import Consequence, Fix, Safety, Severity, Surface, Violation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kbitlint.context import TrainingContext
    from kbitlint.facts.source import ExecutionPath, SourceFacts, Step
    from kbitlint.facts.values import Call, Span


class UnloadedAdaptersSaved(Rule):
    """Adapters are taken out of the model without a merge, and the untrained base is saved.

    ## What it does

    Reports `unload()` on a model with adapters that the script has trained or loaded, if it saves or pushes that model
    afterwards. It is a warning if the adapters were saved before.

    ## Why is this bad?

    `unload` takes the adapter layers out and drops them. Only `merge_and_unload` adds their product to the weights first. The
    saved model is the base as it was loaded: it passes every check of its format, and has learned nothing.

    ## Example

    `merged = trainer.model.unload()`, then `merged.push_to_hub("me/tuned")`.

    ## Fix

    Call `merge_and_unload()`.

    ## Fix safety

    Unsafe: the saved weights change. A merge into packed weights rounds: see KB621.

    ## References

    - https://huggingface.co/docs/peft/developer_guides/lora#merge-lora-weights-into-the-base-model
    - https://github.com/huggingface/peft/issues/868
    """

    meta: ClassVar[Meta] = Meta(
        code="KB549",
        slug="unloaded-adapters-saved",
        severity=Severity.ERROR,
        consequence=Consequence.TRAINS_NOTHING,
        since="0.1.0",
    )

    def check_source(self, source: SourceFacts, context: TrainingContext) -> Iterator[Violation]:
        """Yield one violation for each ``unload()`` whose model is saved afterwards on every path."""
        lost: dict[Span, list[bool]] = {}
        for path in source.paths:
            for step, kept in _lost(path):
                lost.setdefault(step.call.span, []).append(kept)
        for call, steps in source.steps_at(Action.UNLOAD):
            lost_there = lost.get(call.span, [])
            if lost_there and len(lost_there) == len(steps):
                yield self._violation(source, call, kept=any(lost_there))

    def _violation(self, source: SourceFacts, call: Call, *, kept: bool) -> Violation:
        start = source.text.rfind("unload", call.span.start, call.span.end)
        edits = source.replace(type(call.span)(start, start + len("unload"), call.span.line), "merge_and_unload")
        return self.violation(
            "unload() drops the adapters without a merge, and the base that is saved has learned nothing",
            source.at(call),
            surface=Surface.SOURCE,
            severity=Severity.WARNING if kept else None,
            fix=Fix("call merge_and_unload()", Safety.UNSAFE, edits),
        )


def _lost(path: ExecutionPath) -> Iterator[tuple[Step, bool]]:
    """Yield each unload of learned adapters whose model is saved, and whether the adapters were saved before."""
    trained = {training.model_id for training in path.trainings}
    kept: set[int] = set()
    out: dict[int, Step] = {}
    for step in path.steps:
        model, adapters = step.model_id, step.before.adapters
        if step.action is Action.LOAD_ADAPTERS:
            trained.add(model)
            out.pop(model, None)  # what is saved next has adapters
        elif step.action is Action.UNLOAD and model in trained and adapters is not None and adapters.kept:
            out[model] = step
        elif step.action is Action.ATTACH:
            out.pop(model, None)
        elif step.action is Action.SAVE:
            if model in out:
                yield out.pop(model), model in kept
            kept.add(model)
