"""Rule KB572: misused-result."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from kbitlint.rule import Meta, Rule
from kbitlint.violation import Consequence, Fix, Safety, Severity, Surface, Violation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kbitlint.context import TrainingContext
    from kbitlint.facts.object_faults import ObjectFault
    from kbitlint.facts.source import SourceFacts


class MisusedResult(Rule):
    """The result of a library's function is used as something that it is not.

    ## What it does

    Follows what functions of the libraries return. Reports a result of None that is used as an object, a result that is
    unpacked into another number of names, results of `Accelerator.prepare` in another order than its arguments, and keys that
    splits or metrics do not have. A warning for a result that is thrown away, where the call changes nothing else, and for
    that of `Accelerator.prepare`.

    ## Why is this bad?

    `model = model.gradient_checkpointing_enable()` leaves None in the place of the model. `dataset.map(tokenize)` without an
    assignment leaves the data as it was.

    ## Example

    `model = model.resize_token_embeddings(len(tokenizer))`, which returns the embedding.

    ## Fix

    Call a method that works in place without an assignment, and assign the result of one that does not.

    ## Fix safety

    Display only.

    ## References

    - https://github.com/huggingface/transformers/issues/25296
    """

    meta: ClassVar[Meta] = Meta(
        code="KB572",
        slug="misused-result",
        severity=Severity.ERROR,
        consequence=Consequence.FAILS,
        since="0.2.0",
    )

    def check_source(self, source: SourceFacts, context: TrainingContext) -> Iterator[Violation]:
        """Yield one violation for each misused result."""
        seen: set[tuple[str, int]] = set()
        for fault in source.object_faults:
            if fault.kind not in _WORDS or (fault.kind, fault.line) in seen:
                continue
            seen.add((fault.kind, fault.line))
            yield self._report(source, fault)

    def _report(self, source: SourceFacts, fault: ObjectFault) -> Violation:
        dropped = fault.kind in ("dropped", "lost")
        message, fix = _WORDS[fault.kind]
        return self.violation(
            message.format(fault),
            source.at_line(fault.line, fault.name),
            surface=Surface.SOURCE,
            severity=Severity.WARNING if dropped else Severity.ERROR,
            consequence=Consequence.TRAINS_WRONG if dropped else None,
            evidence={"function": fault.owner, "use": fault.name, "meant": fault.meant or None},
            fix=Fix(fix.format(fault), Safety.DISPLAY),
        )


#: kind of fault -> its message and its fix
_WORDS = {
    "none": ("{0.owner} returns None, and {0.name} needs an object", "call it without an assignment"),
    "unpacked": ("{0.owner} returns {0.detail}, and the assignment takes it apart into {0.name}", "assign what it returns"),
    "order": ("{0.owner} returns what it is given in the same order, and the names are {0.name}", "assign to {0.meant}"),
    "key": ("the result of {0.owner} has no {0.name!r}: a KeyError", "use {0.meant}"),
    "unentered": (
        "{0.owner} returns a context manager, which does nothing until a `with` enters it",
        "write `with {0.name}(...):` around the code",
    ),
    "lost": (
        "the objects that {0.owner} returns are thrown away, and the loop uses those that it was given",
        "assign its result to {0.meant}",
    ),
    "dropped": ("{0.name} returns a new object and changes nothing, and its result is thrown away", "assign its result"),
}
