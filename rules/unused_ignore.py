"""Rule KB920: unused-ignore."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from kbitlint.rule import Meta, Rule
from kbitlint.violation import Consequence, Fix, Safety, Severity, Surface, Violation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kbitlint.context import TrainingContext
    from kbitlint.facts.source import SourceFacts
    from kbitlint.facts.values import Ignore


class UnusedIgnore(Rule):
    """An ignore comment that silences nothing, or every rule.

    ## What it does

    Reports `# kbitlint: ignore[...]` comments whose rules report nothing on the line. It also reports comments that name
    no rule: they silence every rule on the line. A comment for a rule that is not selected is not reported.

    ## Why is this bad?

    The comment claims that a fault is present and accepted. After the code is repaired, it hides the next fault of the
    same kind. One that names no rule hides the next fault of any kind.

    ## Example

    `model = prepare_model_for_kbit_training(model, False) # kbitlint: ignore[KB401]`.

    ## Fix

    Remove the comment, or name in it the rules that it silences.

    ## Fix safety

    Naming the rules is safe. Removal is unsafe: the comment is a person's, and its reason goes with it.

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
        """Yield one violation for each comment that silences nothing or every rule."""
        for ignore in source.unused:
            yield self.violation(
                _message(ignore),
                source.at_line(ignore.line, "ignore"),
                surface=Surface.SOURCE,
                evidence={"names": list(ignore.names), "silences": list(ignore.silences)},
                fix=_fix(source, ignore),
            )


def _message(ignore: Ignore) -> str:
    if ignore.names:
        return f"{', '.join(ignore.names)} {'report' if len(ignore.names) > 1 else 'reports'} nothing here to ignore"
    if ignore.silences:
        return f"the comment silences every rule; here that is {', '.join(ignore.silences)}"
    return "the comment silences every rule, and none reports anything here"


def _fix(source: SourceFacts, ignore: Ignore) -> Fix:
    if ignore.silences:
        codes = ", ".join(ignore.silences)
        return Fix(f"name the rules that it silences: {codes}", Safety.SAFE, source.name_in_comment(ignore, codes))
    return Fix("take the comment out", Safety.UNSAFE, source.remove_comment(ignore.start, ignore.end))
