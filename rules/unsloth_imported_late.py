"""Rule KB653: unsloth-imported-late."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from kbitlint import lazy_patterns as re
from kbitlint.facts.values import Span
from kbitlint.rule import Meta, Rule
from kbitlint.violation import Consequence, Fix, Safety, Severity, Surface, Violation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kbitlint.context import TrainingContext
    from kbitlint.facts.source import SourceFacts

#: the packages that unsloth patches as it is imported (unsloth 2026.10, ``_gpu_init.py``)
_PATCHED = ("trl", "transformers", "peft")
#: every import of unsloth, also inside of a block
_UNSLOTH = re.compile(r"(?m)^[ \t]*(?:from[ \t]+unsloth\b|import[ \t][^\n#]*\bunsloth\b)")
#: an import of a package that it patches, at the top level
_EARLY = re.compile(r"(?m)^(?:from[ \t]+(?:trl|transformers|peft)\b|import[ \t][^\n#]*\b(?:trl|transformers|peft)\b)")


class UnslothImportedLate(Rule):
    """Unsloth is imported after the packages that it patches.

    ## What it does

    Reports the import of unsloth if an import of transformers, TRL or PEFT comes before it. The order of the imports at the top
    level counts; in a notebook, the order of the cells.

    ## Why is this bad?

    unsloth replaces functions of these packages while it is imported. Names that were imported before keep the functions
    that it replaces. It warns "Unsloth should be imported before [trl, transformers]", and training is slower or needs more
    memory.

    ## Example

    `from trl import SFTTrainer`, and `from unsloth import FastLanguageModel` below it.

    ## Fix

    Import unsloth first.

    ## Fix safety

    Unsafe: training runs with other functions.

    ## References

    - https://github.com/unslothai/unsloth/issues/2233
    - https://github.com/unslothai/unsloth/issues/1722
    """

    meta: ClassVar[Meta] = Meta(
        code="KB653",
        slug="unsloth-imported-late",
        severity=Severity.WARNING,
        consequence=Consequence.COSTS_MEMORY,
        since="0.1.0",
    )

    def check_source(self, source: SourceFacts, context: TrainingContext) -> Iterator[Violation]:
        """Yield at most one violation, at the first import of unsloth."""
        order = [name.partition(".")[0] for name, _ in source.imports]
        if "unsloth" not in order:
            return
        before = order[: order.index("unsloth")]
        late = [name for name in _PATCHED if name in before]
        own = source.own_text
        # a file that the script imports may import unsloth first
        if not late or "unsloth" in source.text[len(own) :]:
            return
        early, unsloth = _first(_EARLY, own), _first(_UNSLOTH, own)
        if early is None or unsloth is None or unsloth < early:
            return
        yield self.violation(
            f"unsloth is imported after {' and '.join(late)}, whose functions it replaces",
            source.at_line(own.count("\n", 0, unsloth) + 1, "unsloth"),
            surface=Surface.SOURCE,
            evidence={"imported_before": late},
            fix=Fix("import unsloth first", Safety.UNSAFE, source.insert_before(Span(early, early, 0), "import unsloth")),
        )


def _first(pattern: re.Pattern[str], text: str) -> int | None:
    """Return the offset of the first match outside of texts in triple quotes; None if there is none."""
    quotes, start = {'"""': 0, "'''": 0}, 0
    for found in pattern.finditer(text):
        for kind in quotes:
            quotes[kind] += text.count(kind, start, found.start())
        start = found.start()
        if not any(count % 2 for count in quotes.values()):
            return start
    return None
