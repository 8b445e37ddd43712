"""Rule KB543: unknown-keyword."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from kbitlint.facts.guards import chooses_by_version, has_unsloth, is_guarded
from kbitlint.facts.passed import is_alias, passes
from kbitlint.facts.values import Call
from kbitlint.rule import Meta, Rule
from kbitlint.upstream.signatures.lookup import load_refusal, names_of, raises_under_unsloth, refusal
from kbitlint.violation import Consequence, Edit, Fix, Safety, Severity, Surface, Violation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kbitlint.context import TrainingContext
    from kbitlint.facts.source import SourceFacts
    from kbitlint.facts.values import Argument
    from kbitlint.upstream.signatures.lookup import Keyword


class UnknownKeyword(Rule):
    """A keyword that a constructor does not take in the script's versions.

    ## What it does

    Compares the keywords of each call of a config, of training arguments or of a trainer with the parameters of the class.
    These are recorded from the released packages of transformers, TRL and PEFT. An error if no version takes the keyword, or
    if the version that the project declares does not. A warning if only newer versions refuse it and nothing declares one.

    ## Why is this bad?

    The call raises a TypeError. For a trainer that is after the model was downloaded and quantized.

    ## Example

    `SFTTrainer(model, tokenizer=tokenizer, max_seq_length=2048)`, as scripts for TRL before 0.13 pass it.

    ## Fix

    Use the new name, or pass what moved to the trainer's config. Or declare the version of the script: `trl==0.11.4`.

    ## Fix safety

    Safe for a new name, and for an argument whose value changed nothing. Unsafe for one that moves or is misspelt.

    ## References

    - https://github.com/huggingface/trl/issues/2293
    - https://github.com/huggingface/transformers/issues/40638
    """

    meta: ClassVar[Meta] = Meta(
        code="KB543",
        slug="unknown-keyword",
        severity=Severity.ERROR,
        consequence=Consequence.FAILS,
        since="0.1.0",
    )

    def check_source(self, source: SourceFacts, context: TrainingContext) -> Iterator[Violation]:
        """Yield one violation for each call with keywords that its class does not take."""
        if source.dialect != "python":
            return
        chooses: bool | None = None
        for call in (*source.calls, *source.base_calls):
            given = [one for one in call.arguments if passes(source, call, one)]
            refused = {one: found for one in given if (found := _lack(source, call, one.name)) is not None}
            if refused and call.callee.startswith("trl.") and has_unsloth(source.text):
                refused = {one: found for one, found in refused.items() if raises_under_unsloth(call.callee, found)}
            named = call in source.base_calls or source.names_class(call) or is_alias(source, call)
            if not refused or not named or is_guarded(source.text, call.span.start, ("TypeError",)):
                continue
            chooses = chooses_by_version(source.text) if chooses is None else chooses
            known = {one: found for one, found in refused.items() if not (chooses and (found.until or found.since))}
            if known:
                yield self._report(source, call, known)

    def _report(self, source: SourceFacts, call: Call, refused: dict[Argument, Keyword]) -> Violation:
        first = min(refused, key=lambda one: one.whole)
        certain = any(one.is_certain(source.versions) for one in refused.values())
        named = ", ".join(f"{one.name}{one.when}" for one in refused.values())
        return self.violation(
            f"{call.callee.rpartition('.')[2]} takes no {named}: a TypeError",
            source.at_line(first.whole.line, first.name),
            surface=Surface.SOURCE,
            severity=Severity.ERROR if certain else Severity.WARNING,
            consequence=None if certain else Consequence.OUTDATED,
            evidence={
                "keywords": [one.name for one in refused],
                **{one.library: source.versions.get(one.library) for one in refused.values()},
            },
            fix=_fix(source, call, refused),
        )


def _lack(source: SourceFacts, call: Call, name: str) -> Keyword | None:
    return refusal(call.callee, name, source.versions) or load_refusal(call, name, source.versions)


def _fix(source: SourceFacts, call: Call, refused: dict[Argument, Keyword]) -> Fix:
    """Return the fix: new names, arguments that leave or move. Display only if the file does not show where to."""
    edits: list[Edit] = []
    titles, leaving, moving = [], [], []
    misspelt, known = False, [*names_of(call.callee, source.versions)]
    config = call.value("args")
    for argument, keyword in refused.items():
        new = keyword.replacement or ("" if keyword.until or keyword.since else _meant(known, argument.name))
        place = _place(source, config, argument.name) if isinstance(config, Call) else ""
        if not source.writes(call, argument) and (not new or source.times(argument.name) > 1):
            continue  # the dict may be read elsewhere
        if new and call.argument(new) is None:
            edits += source.rename_argument(argument, new)
            titles.append(f"rename {argument.name} to {new}")
            misspelt |= not keyword.replacement
        elif any(argument.value is value or (argument.value == value and value != 1) for value in keyword.inert):
            leaving.append(argument)
            titles.append(f"leave {argument.name} out")
        elif place:
            moving.append((place, argument))
            titles.append(f"pass {place} to the config")
    edits += source.remove_arguments([*leaving, *(argument for _, argument in moving)])
    if moving and isinstance(config, Call):
        (first, value), *others = ((name, source.code_of(argument.span)) for name, argument in moving)
        edits += source.set_argument(config, first, ", ".join((value, *(f"{name}={code}" for name, code in others))))
    if not edits:
        return Fix("leave them out, or declare the version that the script was written for", Safety.DISPLAY)
    return Fix(", ".join(titles), Safety.UNSAFE if moving or misspelt else Safety.SAFE, tuple(edits))


def _meant(known: list[str], name: str) -> str:
    import difflib  # only a finding needs it

    close = difflib.get_close_matches(name, known, 1, 0.85)
    return close[0] if close else ""


def _place(source: SourceFacts, config: Call, name: str) -> str:
    """Return the argument of a trainer's config, in the same file, that takes the place of the trainer's; empty if none."""
    if config.span.start >= len(source.own_text) or not config.callee.endswith("Config") or not source.names_class(config):
        return ""
    known = refusal(config.callee, name, source.versions)
    new = name if known is None else known.replacement
    return new if new and config.argument(new) is None else ""
