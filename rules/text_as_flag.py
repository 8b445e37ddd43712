"""Rule KB579: text-as-flag."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from kbitlint.rule import Meta, Rule
from kbitlint.violation import Consequence, Fix, Safety, Severity, Surface, Violation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kbitlint.context import TrainingContext
    from kbitlint.facts.source import SourceFacts


class TextAsFlag(Rule):
    """An option of argparse has the type `bool`, and the launch passes a text that means no.

    ## What it does

    Reports `add_argument(..., type=bool)` for an option to which the command that launches the script passes `False`, `no` or
    `0`. Such a command is found in the shell scripts and READMEs beside the script, and in its own comments.

    ## Why is this bad?

    argparse calls `bool` on the text, and every text but the empty one is true: the option is on.

    ## Example

    `parser.add_argument("--bf16", type=bool)` and `python train.py --bf16 False`.

    ## Fix

    Use `action=argparse.BooleanOptionalAction`, or a function that reads the text.

    ## Fix safety

    Display only.

    ## References

    - https://github.com/python/cpython/issues/70480
    """

    meta: ClassVar[Meta] = Meta(
        code="KB579",
        slug="text-as-flag",
        severity=Severity.ERROR,
        consequence=Consequence.TRAINS_WRONG,
        since="0.2.0",
    )

    def check_source(self, source: SourceFacts, context: TrainingContext) -> Iterator[Violation]:
        """Yield one violation for each option that cannot be switched off as the launch does."""
        for fault in source.object_faults:
            if fault.kind == "flag":
                yield self.violation(
                    f"{fault.name} has the type bool, so the {fault.detail} that the launch passes is True",
                    source.at_line(fault.line, fault.name),
                    surface=Surface.SOURCE,
                    evidence={"option": fault.name, "passed": fault.detail},
                    fix=Fix("use action=argparse.BooleanOptionalAction", Safety.DISPLAY),
                )
