"""Rule KB544: removed-name."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from kbitlint.facts.guards import chooses_by_version
from kbitlint.facts.values import Span
from kbitlint.rule import Meta, Rule
from kbitlint.upstream.signatures.lookup import HOMES, MOVED, STRANGERS, removal
from kbitlint.upstream.versions import declared, number, short
from kbitlint.violation import Consequence, Fix, Safety, Severity, Surface, Violation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kbitlint.context import TrainingContext
    from kbitlint.facts.source import SourceFacts


class RemovedName(Rule):
    """An import of a name that the library does not export.

    ## What it does

    Compares what a file imports from transformers, TRL, PEFT and datasets with the names that earlier releases exported. An
    error if the version that the project declares lacks the name, a warning if it declares none and the newest lacks it. A name
    that is another library's, as `SFTTrainer` imported from unsloth or `LoraConfig` from transformers, is an error.

    ## Why is this bad?

    The import raises an ImportError, so the script ends in its first second.

    ## Example

    `from trl import DataCollatorForCompletionOnlyLM`, which TRL removed in 0.20.

    ## Fix

    Import what replaced it, or declare the version that the script was written for: `trl==0.19.1`.

    ## Fix safety

    Unsafe: a class that moved to `trl.experimental` may have changed there.

    ## References

    - https://github.com/huggingface/trl/issues/3827
    - https://github.com/huggingface/transformers/issues/36954
    """

    meta: ClassVar[Meta] = Meta(
        code="KB544",
        slug="removed-name",
        severity=Severity.ERROR,
        consequence=Consequence.FAILS,
        since="0.1.0",
    )

    def check_source(self, source: SourceFacts, context: TrainingContext) -> Iterator[Violation]:
        """Yield one violation for each imported name that the script's version of the library lacks."""
        if source.dialect != "python":
            return
        for full, local in source.imports:
            library, _, name = full.partition(".")
            if library in STRANGERS and HOMES.get(name, library) != library:
                yield self._misplaced(source, library, name, local)
                continue
            until = removal(library, name)
            have = number(source.versions.get(library, ""))
            if not until or have < number(until) or full == "peft.prepare_model_for_int8_training":  # KB522's
                continue
            if chooses_by_version(source.text):
                return
            lowest = number(declared(source.versions).get(library, ""))
            certain = bool(lowest) and lowest >= number(until)
            yield self.violation(
                f"{library} exports no {name} since {short(until)}: an ImportError",
                source.at_line(source.line_of(local), name),
                surface=Surface.SOURCE,
                severity=Severity.ERROR if certain else Severity.WARNING,
                consequence=None if certain else Consequence.OUTDATED,
                evidence={"name": name, library: source.versions.get(library)},
                fix=_fix(source, library, name),
            )

    def _misplaced(self, source: SourceFacts, library: str, name: str, local: str) -> Violation:
        return self.violation(
            f"{library} exports no {name}, which is {HOMES[name]}'s: an ImportError",
            source.at_line(source.line_of(local), name),
            surface=Surface.SOURCE,
            evidence={"name": name, "home": HOMES[name]},
            fix=_fix(source, library, name),
        )


def _fix(source: SourceFacts, library: str, name: str) -> Fix:
    """Return the fix that imports the name from its new place; display only if it has none, or shares its statement."""
    module, new = (HOMES[name], name) if HOMES.get(name, library) != library else MOVED.get(name, ("", ""))
    statement = f"from {library} import {name}"
    line = next((number for number, text in enumerate(source.own_text.split("\n"), 1) if text.rstrip() == statement), 0)
    if not module:
        return Fix(f"use what replaced it, or declare an older version of {library}", Safety.DISPLAY)
    title = f"import {new} from {module}"
    if not line:
        return Fix(title, Safety.DISPLAY)
    start = f"\n{source.own_text}".index(f"\n{statement}")
    renamed = "" if new == name else f" as {name}"
    place = Span(start, start + len(statement), line)
    return Fix(title, Safety.UNSAFE, source.replace(place, f"from {module} import {new}{renamed}"))
