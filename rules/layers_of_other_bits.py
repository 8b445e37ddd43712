"""Rule KB548: layers-of-other-bits."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from kbitlint.facts.source import Action
from kbitlint.facts.values import UNKNOWN
from kbitlint.rule import Meta, Rule
from kbitlint.violation import Consequence, Fix, Safety, Severity, Surface, Violation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kbitlint.context import TrainingContext
    from kbitlint.facts.source import SourceFacts, Step

#: bits -> the class of bitsandbytes for them
_CLASSES = {4: "Linear4bit", 8: "Linear8bitLt"}


class LayersOfOtherBits(Rule):
    """Target modules are collected by the layer class of another number of bits than the model has.

    ## What it does

    Reports a search for `Linear8bitLt` in a file whose models are all loaded in 4 bits, or for `Linear4bit` where they have
    8 bits, if the targets of the adapters are computed.

    ## Why is this bad?

    The search finds no layer. PEFT raises for an empty list of targets, or falls back to the defaults of the architecture.

    ## Example

    `cls = bnb.nn.Linear8bitLt`, and `load_in_4bit=True`.

    ## Fix

    Search for `bnb.nn.Linear4bit`, or pass `target_modules='all-linear'`.

    ## Fix safety

    Unsafe: the adapters are attached to other layers than before.

    ## References

    - https://github.com/artidoro/qlora/issues/29
    - https://github.com/huggingface/peft/issues/384
    """

    meta: ClassVar[Meta] = Meta(
        code="KB548",
        slug="layers-of-other-bits",
        severity=Severity.ERROR,
        consequence=Consequence.FAILS,
        since="0.1.0",
    )

    def check_source(self, source: SourceFacts, context: TrainingContext) -> Iterator[Violation]:
        """Yield at most one violation, at the class of the other number of bits."""
        steps = [step for _, attached in source.steps_at(Action.ATTACH) for step in attached]
        if source.dialect != "python" or not steps or not all(map(_computes_targets, steps)):
            return
        named = [bits for bits, name in _CLASSES.items() if source.times(name)]
        if len(named) == 1 and all(step.before.bits == 12 - named[0] for step in steps):
            other, own = _CLASSES[named[0]], _CLASSES[12 - named[0]]
            yield self.violation(
                f"layers of class {other} are searched, and the model's are {own}",
                source.at_line(source.line_of(other), other),
                surface=Surface.SOURCE,
                evidence={"searched": other},
                fix=Fix(f"search for {own}", Safety.DISPLAY),
            )


def _computes_targets(step: Step) -> bool:
    config = step.call.within("peft_config")
    targets = config.value("target_modules") if config is not None else None
    computed = targets is UNKNOWN or (isinstance(targets, tuple) and UNKNOWN in targets)
    return computed and step.before.certain
