"""Rule KB609: wrapped-base-saved."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, ClassVar

from kbitlint.facts.source import Action
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
#: a save of the base, in one expression
_CHAINED = re.compile(r"\.(?:get_base_model\(\)|base_model)(?:\.model)*(?:[ \t]*\))*\s*\.\s*save_pretrained\Z")


class WrappedBaseSaved(Rule):
    """The base inside of a PeftModel is saved as a model, with the adapters still in its layers.

    ## What it does

    Reports `save_pretrained` on the result of `get_base_model()`, or on `base_model.model`, while the model has adapters that
    were not merged.

    ## Why is this bad?

    `get_base_model` returns the model whose layers PEFT replaced. Its weights are named `q_proj.base_layer.weight`, beside
    `lora_A` and `lora_B`. A plain `from_pretrained` finds none of the replaced layers' weights and initialises them anew, with
    a warning only.

    ## Example

    `trainer.model.get_base_model().save_pretrained('merged')` after training LoRA.

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
            inner = _CHAINED.search(code) is not None or bases.get(owner, len(source.text)) < call.span.start
            held = [step.before.adapters for step in steps if step.before.certain]
            if inner and len(held) == len(steps) and all(one is not None and one.kept for one in held):
                yield self.violation(
                    "the base is saved with the adapters in its layers, under names that from_pretrained does not find",
                    source.at(call),
                    surface=Surface.SOURCE,
                    fix=Fix("save merge_and_unload(), or the PeftModel", Safety.DISPLAY),
                )
