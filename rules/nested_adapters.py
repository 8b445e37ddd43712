"""Rule KB631: nested-adapters."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from kbitlint import lazy_patterns as re
from kbitlint.facts.source import Action
from kbitlint.rule import Meta, Rule, Unchecked
from kbitlint.violation import Consequence, Fix, Location, Safety, Severity, Surface, Violation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kbitlint.context import TrainingContext
    from kbitlint.facts.model import ModelFacts
    from kbitlint.facts.source import SourceFacts, Step

#: a name that holds the tuner inside of a PeftModel, which holds the layers with adapters
_TUNER = re.compile(r"^[ \t]*(\w+)[ \t]*=[^\n=]*\.base_model[ \t]*(?:#[^\n]*)?$", re.MULTILINE)


class NestedAdapters(Rule):
    """Adapters were attached to a model that already has adapters, and PEFT wrapped it twice.

    ## What it does

    Counts how many times PEFT wraps the model. Reports more than one.

    In a script, reports `get_peft_model` on a model that has adapters on every path. It is a warning if the model is the base
    inside of a `PeftModel`: a TRL trainer with `peft_config` puts its adapters into the very model that the script passes.
    Reports `PeftModel.from_pretrained` on a `PeftModel`, and on its `base_model`: not the base, but the tuner around it.

    ## Why is this bad?

    `get_peft_model` on a PeftModel does not add an adapter: it wraps the wrapper. If the names of the adapters differ,
    the inner ones are never called and never learn. If they are equal, all train, and the file holds names such as
    `base_model.model.base_model.model...`. On the base model none of these matches: PEFT warns of missing keys, and the
    loaded adapter changes nothing.

    ## Example

    `get_peft_model(get_peft_model(model, config), other, adapter_name="second")`.

    ## Fix

    Use `model.add_adapter("second", config)` and `model.set_adapter("second")`. Or merge and unload the first adapter.

    ## Fix safety

    Display only: which adapters should learn is the user's choice.

    ## References

    - https://github.com/huggingface/peft/issues/837
    - https://github.com/huggingface/peft/issues/3110
    """

    meta: ClassVar[Meta] = Meta(
        code="KB631",
        slug="nested-adapters",
        severity=Severity.ERROR,
        consequence=Consequence.TRAINS_WRONG,
        since="0.1.0",
    )

    def check_model(self, model: ModelFacts, context: TrainingContext) -> Iterator[Violation]:
        """Yield at most one violation, on the model as a whole."""
        if not model.has_adapters:
            raise Unchecked("no adapters are attached yet")
        if model.adapter_levels > 1:
            yield self.violation(
                f"PEFT wraps the model {model.adapter_levels} times: the file of its adapters matches no base model",
                Location(),
                evidence={"levels": model.adapter_levels},
                fix=_FIX,
            )

    def check_source(self, source: SourceFacts, context: TrainingContext) -> Iterator[Violation]:
        """Yield one violation for each ``get_peft_model`` that wraps an adapted model on every path."""
        for call, steps in source.steps_at(Action.LOAD_ADAPTERS):
            if call.callee == "peft.PeftModel.from_pretrained" and all(_wraps_again(source, step) for step in steps):
                yield self.violation(
                    "the model has adapters already: the saved ones wrap them, and their weights match no module",
                    source.at(call),
                    surface=Surface.SOURCE,
                    fix=Fix("load them into the base, or with load_adapter(folder, name)", Safety.DISPLAY),
                )
        for call, steps in source.steps_at(Action.ATTACH):
            before = [step.before for step in steps]
            bare = all(map(_is_bare, steps))
            attaches = call.callee == "peft.get_peft_model" or (bare and call.callee != "add_adapter")
            if attaches and all(m.adapters is not None and m.certain for m in before):
                what = "fresh ones are put in their place or beside them" if bare else "this wraps them a second time"
                yield self.violation(
                    f"the model has adapters already: {what}",
                    source.at(call),
                    surface=Surface.SOURCE,
                    severity=Severity.WARNING if bare else None,
                    fix=_FIX,
                )


def _wraps_again(source: SourceFacts, step: Step) -> bool:
    """Return whether a PeftModel, and not the base inside of it, is wrapped once more."""
    adapters, given = step.before.adapters, step.call.argument("model")
    if adapters is None or given is None or not step.before.certain or not adapters.kept:
        return False
    peft, name = source.name_of(adapters.by), source.code_of(given.span)
    tuners = {found[1] for found in _TUNER.finditer(source.text, 0, step.call.span.start)}
    if name.endswith(".base_model") or name in tuners - {peft}:
        return True
    return not _is_bare(step) and bool(name) and (not peft or name == peft)


def _is_bare(step: Step) -> bool:
    """Return whether the model is the base inside of a ``PeftModel``: the script gives the wrapper another name, or none."""
    adapters = step.before.adapters
    by_trainer = adapters is not None and adapters.by.callee.startswith("trl.")
    return step.detail == "base" or by_trainer


_FIX = Fix("add_adapter(name, config) and set_adapter(name), or merge_and_unload() first", Safety.DISPLAY)
