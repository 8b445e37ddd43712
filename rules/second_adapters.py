"""Rule KB530: second-adapters."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from kbitlint.facts.source import Action
from kbitlint.rule import Meta, Rule
from kbitlint.upstream.trl_versions import behavior
from kbitlint.violation import Consequence, Fix, Safety, Severity, Surface, Violation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kbitlint.context import TrainingContext
    from kbitlint.facts.source import SourceFacts, Step


class SecondAdapters(Rule):
    """Adapters are attached to a model that has adapters already.

    ## What it does

    Reports a TRL trainer that receives a `PeftModel` together with `peft_config`, and adapters for a model that has some
    already. Both `get_peft_model` and a trainer with `peft_config` put them into the very model that they receive, so the
    script's name for the base has them too.

    ## Why is this bad?

    TRL from 0.27 on raises a ValueError. `get_peft_model` only warns that the model is modified for a second time: fresh
    adapters stand in place of the trained ones, or beside them. An adapter that was saved before is not loaded by it.

    ## Example

    `model = get_peft_model(model, config)`, then `SFTTrainer(model=model, peft_config=config)`.

    ## Fix

    Pass either the `PeftModel` or `peft_config`. Load a saved adapter with `PeftModel.from_pretrained`, on a base without
    adapters.

    ## Fix safety

    Safe if `get_peft_model` and the trainer receive the same config: the argument is removed. Display only otherwise.

    ## References

    - https://github.com/huggingface/trl/issues/4029
    - https://github.com/huggingface/peft/issues/2295
    - https://github.com/huggingface/cookbook/pull/338
    """

    meta: ClassVar[Meta] = Meta(
        code="KB530",
        slug="second-adapters",
        severity=Severity.WARNING,
        consequence=Consequence.TRAINS_WRONG,
        since="0.2.0",
    )

    def check_source(self, source: SourceFacts, context: TrainingContext) -> Iterator[Violation]:
        """Yield one violation for each call that attaches adapters to a model with adapters on every path."""
        refused = behavior(source.versions).second == "refused"
        for call, steps in source.steps_at(Action.ATTACH):
            if not all(map(_has_adapters, steps)) or call.callee == "add_adapter" or call.gives("adapter_name"):
                continue
            by_trainer, wrapped = call.callee.startswith("trl."), all(map(_is_wrapped, steps))
            fails = by_trainer and refused and wrapped
            if by_trainer and wrapped and not fails:
                continue  # TRL merges the adapters before it attaches its own
            config = call.argument("peft_config")
            same = config is not None and all(
                step.before.adapters and step.before.adapters.config == config.value for step in steps
            )
            edits = source.remove_argument(config) if fails and same and config is not None else ()
            title = (
                "pass the PeftModel alone" if fails else "load saved adapters with PeftModel.from_pretrained on the bare base"
            )
            yield self.violation(
                "the trainer refuses a PeftModel together with peft_config: a ValueError"
                if fails
                else "the model has adapters already, and fresh ones are put in their place or beside them",
                source.at(call),
                surface=Surface.SOURCE,
                severity=Severity.ERROR if fails else None,
                consequence=Consequence.FAILS if fails else None,
                fix=Fix(title, Safety.SAFE, edits) if edits else Fix(title, Safety.DISPLAY),
            )


def _has_adapters(step: Step) -> bool:
    return step.before.adapters is not None and step.before.certain


def _is_wrapped(step: Step) -> bool:
    """Return whether the model is a ``PeftModel``, and not the base inside one."""
    adapters = step.before.adapters
    wrapped = adapters is not None and adapters.kept and adapters.by.callee.startswith("peft.")
    return wrapped and step.detail != "base"
