"""Rule KB545: inactive-adapter."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from kbitlint.facts.source import Action
from kbitlint.rule import Meta, Rule
from kbitlint.violation import Consequence, Fix, Safety, Severity, Surface, Violation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kbitlint.context import TrainingContext
    from kbitlint.facts.source import SourceFacts, Step


class InactiveAdapter(Rule):
    """An adapter is loaded to be trained, beside another one that stays active.

    ## What it does

    Reports `load_adapter(..., is_trainable=True)` on a model that has adapters, if the file trains the model and activates no
    adapter by name afterwards.

    ## Why is this bad?

    `load_adapter` adds the adapter and leaves the first one active. The forward pass does not use the new adapter, so it gets
    no gradient and is saved as it was loaded. If the first adapter was loaded frozen, nothing trains at all.

    ## Example

    `model = PeftModel.from_pretrained(base, 'domain')`, then `model.load_adapter('persona', 'persona', is_trainable=True)`.

    ## Fix

    Call `model.set_adapter('persona')` after it is loaded.

    ## Fix safety

    Unsafe: other parameters train than before.

    ## References

    - https://huggingface.co/docs/peft/package_reference/peft_model
    - https://github.com/huggingface/peft/issues/1327
    """

    meta: ClassVar[Meta] = Meta(
        code="KB545",
        slug="inactive-adapter",
        severity=Severity.ERROR,
        consequence=Consequence.TRAINS_NOTHING,
        since="0.1.0",
    )

    def check_source(self, source: SourceFacts, context: TrainingContext) -> Iterator[Violation]:
        """Yield one violation for each trainable adapter that stays beside an active one on every path that trains."""
        for call, steps in source.steps_at(Action.LOAD_ADAPTERS):
            later = source.text[call.span.end :]
            chosen = "set_adapter(" in later or "active_adapter" in later or "adapter_name=" in later
            if call.callee != "load_adapter" or chosen or not all(map(_stays_idle, steps)):
                continue
            trained = {training.model_id for path in source.paths for training in path.trainings}
            given = call.argument("adapter_name")
            if {step.model_id for step in steps} <= trained and given is not None:
                name = source.code_of(given.span)
                owner = source.code_of(call.span).partition(".load_adapter")[0]
                line = source.text.find("\n", call.span.end) + 1
                alone = source.text[source.line_start(call.span.start) : call.span.start].strip() == "" and line
                indent = source.text[source.line_start(call.span.start) : call.span.start]
                edits = (
                    source.insert_at(line, f"{indent}{owner}.set_adapter({name})\n") if alone and owner.isidentifier() else ()
                )
                title = f"set_adapter({name}) after it is loaded"
                yield self.violation(
                    f"the adapter {name} is loaded to be trained, and another one stays active",
                    source.at(call),
                    surface=Surface.SOURCE,
                    evidence={"adapter": name},
                    fix=Fix(title, Safety.UNSAFE, edits) if edits else Fix(title, Safety.DISPLAY),
                )


def _stays_idle(step: Step) -> bool:
    """Return whether a trainable adapter is loaded beside adapters that the model has already."""
    return step.before.adapters is not None and step.before.certain and step.call.value("is_trainable") is True
