"""Rule KB401: reentrant-checkpointing."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from kbitlint.context import Strategy, TrainingContext
from kbitlint.facts.histories import deciding, put_to_sleep
from kbitlint.rule import Meta, Rule, Unchecked
from kbitlint.upstream.versions import takes_kwargs
from kbitlint.violation import Consequence, Edit, Fix, Location, Safety, Severity, Surface, Violation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kbitlint.facts.layers import LayerCheckpointing
    from kbitlint.facts.model import ModelFacts
    from kbitlint.facts.model_state import CheckpointingState, ModelState
    from kbitlint.facts.source import SourceFacts
    from kbitlint.facts.training import Training
    from kbitlint.facts.values import Call

TITLE = "checkpoint without reentry"
UNSET = "use_reentrant is not passed, so torch checkpoints reentrantly"


class ReentrantCheckpointing(Rule):
    """Layers that checkpoint reentrantly, by request or by default.

    ## What it does

    Reports each module whose checkpoint function is bound with `use_reentrant=True`, or without a value: torch then defaults to
    reentrant (2.13 still does). In a script, reports the call that decides last.

    It is an error under DDP with `find_unused_parameters=True`, and a warning if the script runs on several ranks and Trainer
    lets DDP search. Else it is an info, also on a model with strategy `single`: one process computes the same either way.

    ## Why is this bad?

    Reentrant checkpointing trains a frozen base only with a hook on the embeddings. It loses the gradient of tensors that are
    passed by keyword, and ignores `torch.autograd.grad`. It fails under DDP with `find_unused_parameters=True` ("marked as
    ready twice"), which Trainer passes for a PeftModel.

    ## Example

    `prepare_model_for_kbit_training(model)`: PEFT turns "no kwargs" into `{}`, so transformers' default of
    `use_reentrant=False` does not apply, and the layers get `partial(checkpoint)`.

    ## Fix

    Bind the same checkpoint function with `use_reentrant=False`; its other options are kept. In a script, pass
    `{"use_reentrant": False}` to the deciding call.

    ## Fix safety

    Safe: both variants compute the same values. Skipped under ZeRO-3: its parameters change shape before recomputation, which
    only the reentrant variant tolerates.

    ## References

    - https://github.com/huggingface/peft/issues/1142
    - https://github.com/artidoro/qlora/issues/287
    - https://github.com/huggingface/trl/issues/5217
    """

    meta: ClassVar[Meta] = Meta(
        code="KB401",
        slug="reentrant-checkpointing",
        severity=Severity.WARNING,
        consequence=Consequence.FRAGILE,
        since="0.1.0",
    )

    def check_model(self, model: ModelFacts, context: TrainingContext) -> Iterator[Violation]:
        """Yield one violation for each module that checkpoints reentrantly."""
        if context.strategy is Strategy.ZERO3:
            raise Unchecked("ZeRO-3 needs reentrant checkpointing")
        loop = context.gradient_checkpointing
        severity = Severity.INFO if context.strategy is Strategy.SINGLE else Severity.WARNING
        for module in model.checkpointing:
            if loop is not None and loop.enabled and module.rebindable:
                continue  # the loop rebinds it before the first step: see below
            if module.reentry.reentrant:
                yield self._violation(module, severity)
        if loop is not None and loop.enabled and loop.use_reentrant is not False:
            yield self.violation(
                "the training arguments ask for reentrant checkpointing",
                Location(),
                severity=severity,
                evidence={"use_reentrant": "unset" if loop.use_reentrant is None else "True"},
                fix=Fix('pass {"use_reentrant": False} as checkpointing kwargs', Safety.DISPLAY),
            )

    def _violation(self, module: LayerCheckpointing, severity: Severity) -> Violation:
        fix = Fix(TITLE, Safety.SAFE, (Edit("bind-checkpoint", module.path, {"use_reentrant": False}),))
        return self.violation(
            UNSET if module.reentry.value == "unset" else "checkpointing is reentrant",
            Location(module.path),
            severity=severity,
            evidence={"class": module.class_name, "use_reentrant": module.reentry.value},
            fix=fix if module.rebindable else Fix("pass use_reentrant=False in the model's own code", Safety.DISPLAY),
        )

    def check_source(self, source: SourceFacts, context: TrainingContext) -> Iterator[Violation]:
        """Yield one violation for each call that sets reentrant checkpointing on every path through it."""
        for found in deciding(source, zero3=context.strategy is Strategy.ZERO3):
            yield self._decision(source, found)
        for call in source.calls_of("torch.checkpoint", "torch.checkpoint_sequential"):
            if call.value("use_reentrant") is None:
                edits = source.set_value(call, "use_reentrant", value=False)
                yield self.violation(UNSET, source.at(call), surface=Surface.SOURCE, fix=Fix(TITLE, Safety.SAFE, edits))

    def _decision(self, source: SourceFacts, found: list[tuple[ModelState, Training | None]]) -> Violation:
        how = found[0][0].checkpointing
        call: Call = how.by  # type: ignore[assignment]  # a state that checkpoints has the call that decides
        given = call.argument(how.flag or how.kwargs)
        trainings = [training for _, training in found if training is not None]
        fails = any(one.distributed and one.find_unused is True and not put_to_sleep(source, one) for one in trainings)
        decided = how.flag or any(one.find_unused is False for one in trainings)  # on one path: False if ddp else None
        searches = bool(source.distributed) and not decided and any(training.lets_ddp_search for training in trainings)
        message = UNSET if how.reentry.value == "unset" else "checkpointing is reentrant"
        if fails:
            message += ", and DDP looks for unused parameters"
        elif searches:
            message += ", and on several ranks Trainer lets DDP look for unused parameters"
        elif not trainings:
            message += ", unless a later call decides otherwise"
        return self.violation(
            message,
            source.at(call) if given is None else source.at_line(given.whole.line, given.name),
            surface=Surface.SOURCE,
            severity=Severity.ERROR if fails else Severity.WARNING if searches else Severity.INFO,
            consequence=Consequence.FAILS if fails else None if searches or not trainings else Consequence.HARMLESS,
            evidence={"use_reentrant": how.reentry.value, "trained_here": bool(trainings)},
            fix=_repair(source, how, call),
        )


def _repair(source: SourceFacts, how: CheckpointingState, call: Call) -> Fix:
    given, kwargs = call.argument(how.kwargs), call if how.flag else call.within(how.kwargs)
    if how.kwargs and takes_kwargs(call, source.versions) and (given is None or given.value is None):
        return Fix(TITLE, Safety.SAFE, source.set_value(call, how.kwargs, {"use_reentrant": False}))
    if kwargs is not None:
        return Fix(TITLE, Safety.SAFE, source.set_value(kwargs, how.flag or "use_reentrant", value=False))
    return Fix("pass use_reentrant=False", Safety.DISPLAY)
