"""Rule KB206: copy-frozen-by-name."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from kbitlint.facts.source import Action
from kbitlint.rule import Meta, Rule
from kbitlint.violation import Consequence, Fix, Safety, Severity, Surface, Violation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kbitlint.context import TrainingContext
    from kbitlint.facts.source import ExecutionPath, SourceFacts
    from kbitlint.facts.values import Call


class CopyFrozenByName(Rule):
    """A loop over parameter names freezes the copy of a head that PEFT would train.

    ## What it does

    Reports a loop in a script that freezes parameters by their names after the adapters are attached. It must freeze PEFT's
    copies of modules: those of `modules_to_save`, or of the head that the task type names. The model must train afterwards
    without anything that makes them trainable again.

    ## Why is this bad?

    PEFT freezes the base itself, and makes copies of such modules trainable. A loop that freezes every name without `lora_`
    freezes `score.modules_to_save.default.weight` too. The copy of a new head stays as it was initialised, at random.

    ## Example

    `if "lora_" not in name: param.requires_grad = False` after `get_peft_model` with `task_type="SEQ_CLS"`.

    ## Fix

    Leave the loop out. If it is needed for other parameters, leave names with `modules_to_save` out of it.

    ## Fix safety

    Display only: what the loop is for is not known.

    ## References

    - https://github.com/huggingface/peft/issues/602
    - https://github.com/huggingface/peft/issues/1070
    """

    meta: ClassVar[Meta] = Meta(
        code="KB206",
        slug="copy-frozen-by-name",
        severity=Severity.WARNING,
        consequence=Consequence.TRAINS_NOTHING,
        since="0.1.0",
    )

    def check_source(self, source: SourceFacts, context: TrainingContext) -> Iterator[Violation]:
        """Yield one violation for each loop that freezes, by name, copies that the adapter config trains."""
        for call, steps in source.steps_at(Action.FREEZE_COPIES):
            ways = [_left_frozen(path, call) for path in source.paths if any(step.call == call for step in path.steps)]
            if ways and all(ways) and steps[0].before.certain:
                yield self.violation(
                    f"the copy of {' or '.join(ways[0])} that PEFT would train is frozen by its name",
                    source.at(call),
                    surface=Surface.SOURCE,
                    evidence={"modules": list(ways[0])},
                    fix=Fix('leave names with "modules_to_save" out of it: PEFT has frozen the base', Safety.DISPLAY),
                )


def _left_frozen(path: ExecutionPath, call: Call) -> tuple[str, ...]:
    """Return the modules that a call freezes and that stay so on a path that trains the model."""
    at = next(number for number, step in enumerate(path.steps) if step.call == call)
    frozen = path.steps[at].detail
    for step in path.steps[at + 1 :]:
        if step.model_id == path.steps[at].model_id and step.action in (Action.UNFREEZE, Action.UNFREEZE_COPIES, Action.ATTACH):
            return ()
    trained = any(training.model_id == path.steps[at].model_id for training in path.trainings)
    return tuple(map(str, frozen)) if trained and isinstance(frozen, tuple) else ()
