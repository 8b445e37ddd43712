"""Rule KB308: dropout-drawn-anew."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from kbitlint.facts.values import Call
from kbitlint.rule import Meta, Rule, Unchecked
from kbitlint.violation import Consequence, Fix, Location, Safety, Severity, Surface, Violation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kbitlint.context import TrainingContext
    from kbitlint.facts.model import ModelFacts
    from kbitlint.facts.model_state import ModelState
    from kbitlint.facts.source import SourceFacts

_FIX = Fix("leave out preserve_rng_state=False", Safety.DISPLAY)


class DropoutDrawnAnew(Rule):
    """Checkpoints that do not restore the random state, around a module with dropout.

    ## What it does

    Reports checkpointed modules to whose checkpoint function `preserve_rng_state=False` is bound, if dropout is active in
    them. A script is checked for the argument and for the dropout of its LoRA config.

    ## Why is this bad?

    The backward pass computes the module again to get its gradients. Without the saved random state, dropout drops
    other elements than in the forward pass. The gradients then belong to another network than the loss. Nothing
    raises. With a LoRA dropout of 0.3 the gradients of a step point elsewhere (cosine 0.66).

    ## Example

    `gradient_checkpointing_kwargs={"use_reentrant": False, "preserve_rng_state": False}` with `lora_dropout=0.1`.

    ## Fix

    Leave the argument out: torch saves and restores the random state by default.

    ## Fix safety

    Display only: the user asked for it.

    ## References

    - https://github.com/allenai/OLMo/pull/702
    """

    meta: ClassVar[Meta] = Meta(
        code="KB308",
        slug="dropout-drawn-anew",
        severity=Severity.ERROR,
        consequence=Consequence.TRAINS_WRONG,
        since="0.1.0",
    )

    def check_model(self, model: ModelFacts, context: TrainingContext) -> Iterator[Violation]:
        """Yield one violation for each module whose dropout differs when it is computed again."""
        if model.compiled:
            raise Unchecked("torch.compile decides how the checkpoints run")
        for module in model.checkpointing:
            if module.redraws:
                yield self.violation(
                    "dropout in it differs when it is computed again: the random state is not preserved",
                    Location(module.path),
                    evidence={"class": module.class_name},
                    fix=_FIX,
                )

    def check_source(self, source: SourceFacts, context: TrainingContext) -> Iterator[Violation]:
        """Yield one violation for each training that checkpoints so on every path, with a dropout of its adapters."""
        for trained in source.trained():
            if trained.certain and all(map(_redraws, trained.models)):
                yield self.violation(
                    "dropout differs when layers are computed again: the random state is not preserved",
                    source.at(trained.models[0].checkpointing.by or trained.call),
                    surface=Surface.SOURCE,
                    fix=_FIX,
                )


def _redraws(model: ModelState) -> bool:
    """Return whether the layers checkpoint without their random state, and the adapters have dropout."""
    how = model.checkpointing
    if not (how.enabled and how.by is not None and how.kwargs and model.adapters is not None):
        return False
    kwargs, config = how.by.value(how.kwargs), model.adapters.config
    if not isinstance(kwargs, Call) or not isinstance(config, Call):
        return False
    dropout = config.value("lora_dropout")
    return kwargs.value("preserve_rng_state") is False and isinstance(dropout, (int, float)) and dropout > 0
