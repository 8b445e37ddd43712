"""Rule KB535: refused-arguments."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, ClassVar

from kbitlint.facts.guards import imports_package
from kbitlint.facts.histories import received_models
from kbitlint.rule import Meta, Rule
from kbitlint.upstream.contracts.conditions import names
from kbitlint.upstream.contracts.rows import broken
from kbitlint.upstream.keys import meant_keys
from kbitlint.upstream.signatures.lookup import replaced
from kbitlint.violation import Consequence, Fix, Safety, Severity, Surface, Violation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kbitlint.context import TrainingContext
    from kbitlint.facts.model_state import ModelState
    from kbitlint.facts.source import SourceFacts
    from kbitlint.facts.values import Call
    from kbitlint.upstream.contracts.rows import Contract

#: the places of values in the library's message
_GAP = re.compile(r" {2,}|''")


class RefusedArguments(Rule):
    """Arguments that a constructor refuses together, or silently ignores.

    ## What it does

    Reports combinations of arguments, and orders of calls, for which PEFT, transformers, TRL, diffusers, Lightning,
    unsloth, axolotl, LLaMA-Factory, LitGPT or ms-swift raises an exception (an error), or drops an argument (a warning). The
    message is the library's own. A combination that only some paths reach is a warning, as is a batch that only a
    number of processes which no launch command names can divide.

    ## Why is this bad?

    The exception comes when the line runs. On a rented GPU that is often after the download of the model. An argument
    that is dropped leaves its default, and nothing but a line of the log tells.

    ## Example

    `LoraConfig(target_parameters=['mlp.experts.down_proj'], lora_dropout=0.05)`, or a PeftModel together with
    `peft_config` for a trainer of TRL.

    ## Fix

    Remove the argument that is ignored, or the one that the other excludes.

    ## Fix safety

    Safe for an argument that is ignored. Unsafe for one that another excludes: either may be meant.

    ## References

    - https://github.com/huggingface/peft/issues/2638
    - https://github.com/huggingface/peft/issues/1988
    """

    meta: ClassVar[Meta] = Meta(
        code="KB535",
        slug="refused-arguments",
        severity=Severity.ERROR,
        consequence=Consequence.FAILS,
        since="0.1.0",
    )

    def check_source(self, source: SourceFacts, context: TrainingContext) -> Iterator[Violation]:
        """Yield one violation for each combination that a call refuses or ignores."""
        received = received_models(source)
        processes = context.world_size or source.processes
        changes_batch = imports_package(source.text, "unsloth")  # its config makes the batch size a multiple
        for call in source.calls:
            ways: list[tuple[Call, ModelState | None]] = [(one, None) for one in source.variants.get(call.span) or (call,)]
            if any(one.callee == call.callee for one, _ in received.get(call.span.start, ())):
                ways = [*received[call.span.start]]
            found: dict[Contract, int] = {}
            for one, model in ways:
                for row in broken(one, source.versions, model, processes or (None if source.distributed else 1)):
                    found[row] = found.get(row, 0) + 1
            names_given = [one.name for one in call.arguments] if found else []
            causes = {*meant_keys(source.dialect, names_given).values(), *replaced(call.callee, names_given, source.versions)}
            for row, times in found.items():
                if causes & set(names(row.when)) or (changes_batch and "processes" in row.when):
                    continue  # the misspelt or former key is the cause, and another rule's
                alone = "processes" in row.when and processes is None
                yield self._report(source, call, row, always=times == len(ways), alone=alone)

    def _report(self, source: SourceFacts, call: Call, row: Contract, *, always: bool, alone: bool) -> Violation:
        library, _, last = call.callee.partition(".")
        name = library if library == source.dialect else last.rpartition(".")[2]
        argument = row.at(call)
        message = " ".join(_GAP.sub(" ... ", row.message.strip()).split())
        apart = argument is None or _meets_here(source, call, row)
        where = source.at(call) if apart or argument is None else source.at_line(argument.whole.line, argument.name)
        certain = always and not alone
        severity, consequence = (Severity.ERROR, Consequence.FAILS) if certain else (Severity.WARNING, Consequence.FRAGILE)
        if row.raises:
            where_raised = " with one process" if alone else "" if always else " on some paths"
            moment = "".join((f" {row.moment}" if row.moment else "", where_raised))
            article = "an" if row.raises[0] in "AEIOU" else "a"
            what = f"{name} raises {article} {row.raises}{moment}: {message}"
        else:
            does = f"ignores {row.drops}" if row.drops else "warns"
            what, severity, consequence = f"{name} {does}: {message}", Severity.WARNING, Consequence.TRAINS_WRONG
        return self.violation(
            what,
            where,
            surface=Surface.SOURCE,
            severity=severity,
            consequence=consequence,
            evidence={"condition": row.when, "raises": row.raises or None},
            fix=_fix(source, call, row),
        )


def _meets_here(source: SourceFacts, call: Call, row: Contract) -> bool:
    """Return whether the arguments that a row names come from different places, such as the defaults of a class.

    A blank line between two of them tells that they are not of one dict.
    """
    given = [one.whole for name in names(row.when) if (one := call.argument(name)) is not None]
    first, last = min(given, default=call.span), max(given, default=call.span)
    outside = last.end < call.span.start or first.start > call.span.end
    if outside and all(one.span == one.whole for one in call.arguments if one.whole == first):
        return True  # of a file that the script loads: its key is in no text here
    return outside and "\n\n" in source.text[first.start : last.end]


def _fix(source: SourceFacts, call: Call, row: Contract) -> Fix:
    """Return the fix that removes the argument which the row names; display only if it is not written in the call."""
    dropped = row.dropped(call)
    if dropped is None:
        return Fix("change one of the arguments that the condition names", Safety.DISPLAY)
    title = f"leave {dropped.name} out"
    inside = call.span.start <= dropped.whole.start < call.span.end
    keyword = inside and source.text.startswith(dropped.name, dropped.whole.start) and call.callee != row.drops
    edits = source.remove_argument(dropped) if keyword and source.dialect == "python" and dropped.name != "args" else ()
    safety = Safety.UNSAFE if row.raises else Safety.SAFE
    return Fix(title, safety, edits) if edits else Fix(title, Safety.DISPLAY)
