"""Rule KB545: inactive-adapter."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from kbitlint.facts.source import Action
from kbitlint.facts.training import Loop
from kbitlint.rule import Meta, Rule
from kbitlint.violation import Consequence, Fix, Safety, Severity, Surface, Violation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kbitlint.context import TrainingContext
    from kbitlint.facts.source import ExecutionPath, SourceFacts, Step
    from kbitlint.facts.values import Call


class InactiveAdapter(Rule):
    """An adapter is added to be trained, beside another one that stays active.

    ## What it does

    Reports `load_adapter(..., is_trainable=True)`, `add_adapter` and `add_weighted_adapter` on a PeftModel that has adapters,
    if the file trains the model afterwards and activates no adapter by name. A first training may be meant for the first one.

    ## Why is this bad?

    PEFT adds the adapter and leaves the first one active. The forward pass does not use the new adapter, so it gets
    no gradient and is saved as it was added. The training changes the first adapter instead. If that one was loaded frozen by
    `load_adapter`, nothing trains at all.

    ## Example

    `model = get_peft_model(base, config, adapter_name='sql')`, a training, then `model.add_adapter('math', config)` and the
    next training.

    ## Fix

    Call `model.set_adapter('math')` after it is added.

    ## Fix safety

    Unsafe: other parameters train than before.

    ## References

    - https://huggingface.co/docs/peft/package_reference/peft_model
    - https://github.com/huggingface/peft/issues/1303
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
        trained = {training.model_id for path in source.paths for training in path.trainings}
        for call, steps in source.steps_at(Action.LOAD_ADAPTERS):
            idle = call.callee == "load_adapter" and all(map(_stays_idle, steps))
            if idle and {step.model_id for step in steps} <= trained and not _is_chosen(source, call):
                yield from self._report(source, call, "loaded")
        for call, steps in source.steps_at(Action.ADD):
            paths = [path for path in source.paths if any(step.call == call for step in path.steps)]
            ways = [_trains_on(path, call) for path in paths]
            certain = all(step.before.certain for step in steps)
            if certain and ways and all(ways) and not _is_frozen(call) and not _is_chosen(source, call):
                again = all(
                    _trained_before(path, call) for path in source.paths if any(step.call == call for step in path.steps)
                )
                yield from self._report(source, call, "added", certain=again)

    def _report(self, source: SourceFacts, call: Call, how: str, *, certain: bool = True) -> Iterator[Violation]:
        given = call.argument("adapter_name")
        if given is None:
            return
        name = source.code_of(given.span)
        owner = source.code_of(call.span).partition(f".{call.callee}")[0]
        line = source.text.find("\n", call.span.end) + 1
        indent = source.text[source.line_start(call.span.start) : call.span.start]
        alone = not indent.strip() and line and owner.isidentifier()
        edits = source.insert_at(line, f"{indent}{owner}.set_adapter({name})\n") if alone else ()
        yield self.violation(
            f"the adapter {name} is {how} to be trained, and another one stays active",
            source.at(call),
            surface=Surface.SOURCE,
            severity=Severity.ERROR if certain else Severity.WARNING,
            evidence={"adapter": name},
            fix=Fix(f"set_adapter({name}) after it is {how}", Safety.UNSAFE if edits else Safety.DISPLAY, edits),
        )


def _stays_idle(step: Step) -> bool:
    """Return whether a trainable adapter is loaded beside adapters that the model has already."""
    return step.before.adapters is not None and step.before.certain and step.call.value("is_trainable") is True


def _is_frozen(call: Call) -> bool:
    """Return whether an added adapter is meant for inference."""
    config = call.within("peft_config")
    return config is not None and config.value("inference_mode", False) is not False  # noqa: FBT003  # the default


def _is_chosen(source: SourceFacts, call: Call) -> bool:
    """Return whether the file may activate the adapter, or name it as that of a reference model, after it is added."""
    later = source.text[call.span.end :]
    followed = [(one.span.start, one.span.end) for one, _ in source.steps_at(Action.ACTIVATE)]
    places = _places(source.text, ".set_adapter(")
    open_calls = any(not any(start <= place < end for start, end in followed) for place in places)
    chosen = call.callee == "load_adapter" and "set_adapter(" in later
    return open_calls or chosen or "active_adapter" in later or "adapter_name=" in later


def _places(text: str, word: str) -> Iterator[int]:
    start = text.find(word)
    while start >= 0:
        yield start
        start = text.find(word, start + 1)


def _trained_before(path: ExecutionPath, call: Call) -> bool:
    """Return whether a path has trained the model before an adapter is added: the next training is meant for the new one."""
    at = next(number for number, step in enumerate(path.steps) if step.call == call)
    number = path.steps[at].model_id
    trainers = any(step.action is Action.TRAINER and step.model_id == number for step in path.steps[:at])
    return trainers or any(
        one.model_id == number and one.loop is Loop.OWN and one.call.span.start < call.span.start for one in path.trainings
    )


def _trains_on(path: ExecutionPath, call: Call) -> bool:
    """Return whether a path trains the model after an adapter was added, and activates no adapter in between."""
    at = next(number for number, step in enumerate(path.steps) if step.call == call)
    number = path.steps[at].model_id
    later = [step.action for step in path.steps[at + 1 :] if step.model_id == number]
    if Action.ACTIVATE in later:
        return False
    own = (one for one in path.trainings if one.model_id == number and one.loop is Loop.OWN)
    return Action.TRAINER in later or any(one.call.span.start > call.span.end for one in own)
