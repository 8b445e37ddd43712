"""Rule KB658: excluded-targets."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from kbitlint.rule import Meta, Rule
from kbitlint.violation import Consequence, Fix, Safety, Severity, Surface, Violation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kbitlint.context import TrainingContext
    from kbitlint.facts.source import SourceFacts
    from kbitlint.facts.values import Call

#: patterns that match every path
_ANY = (".*", ".+", "^.*$", "^.+$", "(.*)")


class ExcludedTargets(Rule):
    """An adapter config that excludes all of its own targets.

    ## What it does

    Compares `exclude_modules` with `target_modules`, as PEFT does: names by their ends, and a text as a pattern for the whole
    path.

    ## Why is this bad?

    PEFT finds no layer to adapt and raises: `All modules were excluded`, or `No modules were targeted for adaptation`.

    ## Example

    `LoraConfig(target_modules=["q_proj"], exclude_modules=["q_proj"])`.

    ## Fix

    Exclude fewer modules: a pattern such as `.*vision.*` names those that are to be left out.

    ## Fix safety

    Display only.

    ## References

    - https://github.com/huggingface/peft/pull/2221
    - https://github.com/huggingface/peft/issues/2044
    """

    meta: ClassVar[Meta] = Meta(
        code="KB658",
        slug="excluded-targets",
        severity=Severity.ERROR,
        consequence=Consequence.FAILS,
        since="0.2.0",
    )

    def check_source(self, source: SourceFacts, context: TrainingContext) -> Iterator[Violation]:
        """Yield one violation for each such config that is attached."""
        for config, _ in source.attached():
            argument = config.argument("exclude_modules")
            if argument is not None and config.callee.startswith("peft.") and _leaves_none(config):
                yield self.violation(
                    "exclude_modules leaves none of the targets: PEFT refuses it",
                    source.at_line(argument.whole.line, "exclude_modules"),
                    surface=Surface.SOURCE,
                    fix=Fix("exclude fewer modules", Safety.DISPLAY),
                )


def _leaves_none(config: Call) -> bool:
    """Return whether ``exclude_modules`` leaves no target of an adapter config."""
    excluded, targets = config.value("exclude_modules"), config.value("target_modules")
    if isinstance(excluded, str):
        return excluded in _ANY
    if not (isinstance(excluded, tuple) and isinstance(targets, tuple) and targets):
        return False
    return all(isinstance(name, str) and name in excluded for name in targets)
