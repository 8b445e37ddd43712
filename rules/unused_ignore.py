"""Rule KB920: unused-ignore."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from kbitlint.rule import Meta, Rule
from kbitlint.violation import Consequence, Fix, Safety, Severity, Surface, Violation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kbitlint.context import TrainingContext
    from kbitlint.facts.source import SourceFacts


class UnusedIgnore(Rule):
    """An ignore comment that silences nothing.

    ## What it does

    Reports `# kbitlint: ignore[...]` comments whose rules report nothing on the line, and comments that name no rule. A
    comment for a rule that is not selected is not reported.

    ## Why is this bad?

    The comment claims that a fault is present and accepted. After the code is repaired, it hides the next fault of the
    same kind.

    ## Example

    `model = prepare_model_for_kbit_training(model, False) # kbitlint: ignore[KB401]`.

    ## Fix

    Remove the comment.

    ## Fix safety

    Safe: a comment changes nothing.

    ## References

    - https://github.com/astral-sh/ruff/issues/1054
    - https://github.com/pylint-dev/pylint/issues/2493
    """

    meta: ClassVar[Meta] = Meta(
        code="KB920",
        slug="unused-ignore",
        severity=Severity.INFO,
        consequence=Consequence.HARMLESS,
        since="0.1.0",
    )

    def check_source(self, source: SourceFacts, context: TrainingContext) -> Iterator[Violation]:
        """Yield one violation for each comment that silences nothing."""
        for ignore in source.unused:
            named = ", ".join(ignore.names)
            yield self.violation(
                f"{named} {'report' if len(ignore.names) > 1 else 'reports'} nothing here to ignore"
                if named
                else "the comment names no rule, so it ignores nothing: # kbitlint: ignore[KB401]",
                source.at_line(ignore.line, "ignore"),
                surface=Surface.SOURCE,
                evidence={"names": list(ignore.names)},
                fix=Fix("take the comment out", Safety.SAFE, source.remove_comment(ignore.start, ignore.end)),
            )
