"""Rule KB662: lost-settings."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from kbitlint.rule import Meta, Rule
from kbitlint.violation import Consequence, Fix, Safety, Severity, Surface, Violation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kbitlint.context import TrainingContext
    from kbitlint.facts.source import SourceFacts


class LostSettings(Rule):
    """A config is made, and its name is bound to another one before anything reads it.

    ## What it does

    Reports training arguments, adapter configs and quantization configs whose name the same block binds to another config
    before any use, if the later one leaves settings of the earlier one out. Reports a config that each round of a loop makes
    for its own value, if only code behind the loop reads it.

    ## Why is this bad?

    The settings of the earlier config are lost: the training runs with defaults. Of a loop, the last round counts.

    ## Example

    `args = TrainingArguments("out", learning_rate=2e-4)`, and then `args = SFTConfig(packing=True)`.

    ## Fix

    Pass all settings to one config. Collect what a loop makes, or name all layers in one config.

    ## Fix safety

    Display only.

    ## References

    - https://huggingface.co/docs/trl/sft_trainer
    """

    meta: ClassVar[Meta] = Meta(
        code="KB662",
        slug="lost-settings",
        severity=Severity.WARNING,
        consequence=Consequence.TRAINS_WRONG,
        since="0.2.0",
    )

    def check_source(self, source: SourceFacts, context: TrainingContext) -> Iterator[Violation]:
        """Yield one violation for each config that is lost."""
        for fault in source.object_faults:
            if fault.kind == "lost settings":
                lost = f"line {fault.owner} binds it anew: {fault.detail} {'is' if ', ' not in fault.detail else 'are'} lost"
                yield self.violation(
                    f"nothing reads {fault.name} before {lost}"
                    if fault.owner
                    else f"each round makes {fault.name} anew, and only the last one is used",
                    source.at_line(fault.line, fault.name),
                    surface=Surface.SOURCE,
                    evidence={"name": fault.name, "lost": fault.detail or None},
                    fix=Fix("pass all settings to one config", Safety.DISPLAY),
                )
