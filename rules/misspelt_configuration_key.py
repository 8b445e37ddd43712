"""Rule KB536: misspelt-configuration-key."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from kbitlint.rule import Meta, Rule
from kbitlint.upstream.keys import meant_keys
from kbitlint.violation import Consequence, Fix, Safety, Severity, Surface, Violation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kbitlint.context import TrainingContext
    from kbitlint.facts.source import SourceFacts


#: programs that drop unknown keys without a word; the others refuse them
SILENT = ("axolotl",)


class MisspeltConfigurationKey(Rule):
    """A key of a training configuration that the program does not know, beside a similar one.

    ## What it does

    Compares the top-level keys of axolotl's, LLaMA-Factory's, ms-swift's and TRL's configurations with those of the
    program's own schema. Reports an unknown key if a known one is nearly the same and is not set. Other unknown keys
    are not reported, because another version or a plugin may know them.

    ## Why is this bad?

    axolotl ignores unknown keys. With `load_in_4bits: true`, nothing asks for 4 bits, and the model is loaded in 16 bits
    or refused for another reason. LLaMA-Factory, ms-swift and TRL raise a ValueError.

    ## Example

    `load_in_4bits: true` instead of `load_in_4bit: true`.

    ## Fix

    Rename the key.

    ## Fix safety

    Unsafe: the setting takes effect for the first time.

    ## References

    - https://github.com/axolotl-ai-cloud/axolotl/blob/main/src/axolotl/utils/schemas/config.py
    """

    meta: ClassVar[Meta] = Meta(
        code="KB536",
        slug="misspelt-configuration-key",
        severity=Severity.ERROR,
        consequence=Consequence.FAILS,
        since="0.1.0",
    )

    def check_source(self, source: SourceFacts, context: TrainingContext) -> Iterator[Violation]:
        """Yield one violation for each misspelt key."""
        for call in source.calls[:1] if source.dialect != "python" else ():  # the keys of the file
            meant_by = meant_keys(source.dialect, [argument.name for argument in call.arguments])
            for argument in call.arguments:
                name, meant = argument.name, meant_by.get(argument.name)
                if meant is None:
                    continue
                silent = source.dialect in SILENT
                edits = source.rename_argument(argument, meant)
                yield self.violation(
                    f"{source.dialect} knows no key {name} and " + ("ignores it" if silent else "refuses it: a ValueError"),
                    source.at_line(argument.whole.line, name),
                    surface=Surface.SOURCE,
                    severity=Severity.WARNING if silent else Severity.ERROR,
                    consequence=Consequence.TRAINS_WRONG if silent else None,
                    evidence={"key": name, "meant": meant},
                    fix=Fix(f"it is called {meant}", Safety.UNSAFE if edits else Safety.DISPLAY, edits),
                )
