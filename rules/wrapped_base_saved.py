"""Rule KB609: wrapped-base-saved."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from kbitlint import lazy_patterns as re
from kbitlint.facts.source import Action
from kbitlint.facts.values import Call
from kbitlint.rule import Meta, Rule
from kbitlint.violation import Consequence, Fix, Safety, Severity, Surface, Violation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kbitlint.context import TrainingContext
    from kbitlint.facts.source import SourceFacts

#: a name that holds the base of a PeftModel; brackets close a call that unwraps the base
_BOUND = re.compile(
    r"(?m)^[ \t]*(\w+)[ \t]*=[^\n=]*\.(?:get_base_model\(\)|base_model)(?:\.model)*(?:[ \t]*\))*[ \t]*(?:#[^\n]*)?$"
)
#: the name to which what follows is assigned
_TARGET = re.compile(r"(?m)^[ \t]*(\w+)[ \t]*=[ \t]*\Z")
_ASSIGNED = re.compile(r"(?m)^[ \t]*(\w+)[ \t]*=(?!=)")
#: saves of what a Trainer holds
_OF_TRAINER = re.compile(r"\.save_model\(|\.model\.save_pretrained\(")
#: a save of the base, in one expression
_CHAINED = re.compile(r"\.(?:get_base_model\(\)|base_model)(?:\.model)*(?:[ \t]*\))*\s*\.\s*save_pretrained\Z")


def _is_inside(source: SourceFacts, wraps: Call, code: str, saved: int) -> bool:
    """Return whether ``name.save_pretrained`` saves the model that a call has wrapped under another name, or under none."""
    owner, _, method = code.partition(".")
    given = wraps.argument("model")
    start, end = wraps.span.start, wraps.span.end
    if (
        method != "save_pretrained"
        or given is None
        or source.code_of(given.span) != owner
        or not start < saved <= len(source.own_text)
    ):
        return False
    if owner in _ASSIGNED.findall(source.own_text[end:saved]):
        return False
    if wraps.callee.endswith("Trainer"):
        return isinstance(wraps.value("peft_config"), Call)
    target = _TARGET.search(source.own_text[max(0, start - 200) : start])
    return wraps.callee == "peft.get_peft_model" and target is not None and target[1] != owner


class WrappedBaseSaved(Rule):
    """The base inside of a PeftModel is saved as a model, with the adapters still in its layers.

    ## What it does

    Reports `save_pretrained` on the result of `get_base_model()`, on `base_model.model`, or on the name of the base that
    `get_peft_model` or a Trainer with `peft_config` has wrapped, while the model has adapters that were not merged.

    ## Why is this bad?

    `get_base_model` returns the model whose layers PEFT replaced. Its weights are named `q_proj.base_layer.weight`, beside
    `lora_A` and `lora_B`. A plain `from_pretrained` finds none of the replaced layers' weights and initialises them anew, with
    a warning only.

    ## Example

    `model.save_pretrained('adapter')` after `SFTTrainer(model, peft_config=...).train()`.

    ## Fix

    Save `merge_and_unload()` of the model, or the adapter alone with the PeftModel's `save_pretrained`.

    ## Fix safety

    Display only: whether a merged model or an adapter is wanted is not in the file.

    ## References

    - https://github.com/huggingface/peft/issues/636
    - https://github.com/huggingface/peft/issues/1836
    """

    meta: ClassVar[Meta] = Meta(
        code="KB609",
        slug="wrapped-base-saved",
        severity=Severity.ERROR,
        consequence=Consequence.TRAINS_WRONG,
        since="0.1.0",
    )

    def check_source(self, source: SourceFacts, context: TrainingContext) -> Iterator[Violation]:
        """Yield one violation for each save of a base whose adapters are not merged, on every path to it."""
        bases: dict[str, int] | None = None
        for call, steps in source.steps_at(Action.SAVE):
            code = source.code_of(call.span).partition("(")[0]
            if not code.endswith("save_pretrained"):
                code = source.code_of(call.span).rpartition("save_pretrained")[0] + "save_pretrained"
            if bases is None:
                bases = {found[1]: found.start() for found in _BOUND.finditer(source.own_text)}
            owner = code.partition(".")[0]
            held = [step.before.adapters for step in steps if step.before.certain]
            inner = _CHAINED.search(code) is not None or bases.get(owner, len(source.text)) < call.span.start
            wrapped = not inner and all(one is not None and _is_inside(source, one.by, code, call.span.start) for one in held)
            saved_too = wrapped and _OF_TRAINER.search(source.own_text) is not None
            if (inner or wrapped) and len(held) == len(steps) and all(one is not None and one.kept for one in held):
                yield self.violation(
                    "the base is saved with the adapters in its layers, under names that from_pretrained does not find",
                    source.at(call),
                    surface=Surface.SOURCE,
                    severity=Severity.WARNING if saved_too else Severity.ERROR,
                    fix=Fix("save merge_and_unload(), or the PeftModel", Safety.DISPLAY),
                )
