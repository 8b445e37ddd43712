"""Rule KB537: dropped-merge."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from kbitlint.facts.source import Action
from kbitlint.facts.values import Span
from kbitlint.rule import Meta, Rule
from kbitlint.violation import Consequence, Fix, Safety, Severity, Surface, Violation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kbitlint.context import TrainingContext
    from kbitlint.facts.source import SourceFacts


class DroppedMerge(Rule):
    """The merged model is thrown away, and the adapter is saved again in its place.

    ## What it does

    Reports `merge_and_unload()` as a statement of its own, if the file later saves the model under the same name.

    ## Why is this bad?

    `merge_and_unload` returns the merged model. The PeftModel on which it is called keeps its class, but no longer has
    adapter layers. Its `save_pretrained` then writes an adapter file without tensors, 40 bytes long, and no merged
    weights. Nothing fails until the result is loaded.

    ## Example

    `model.merge_and_unload()`, then `model.save_pretrained('merged')`.

    ## Fix

    Keep the result: `model = model.merge_and_unload()`.

    ## Fix safety

    Unsafe: what is saved changes from an adapter to a model.

    ## References

    - https://github.com/huggingface/peft/issues/2032
    - https://github.com/huggingface/peft/issues/868
    """

    meta: ClassVar[Meta] = Meta(
        code="KB537",
        slug="dropped-merge",
        severity=Severity.WARNING,
        consequence=Consequence.TRAINS_WRONG,
        since="0.1.0",
    )

    def check_source(self, source: SourceFacts, context: TrainingContext) -> Iterator[Violation]:
        """Yield one violation for each merge whose result is dropped and whose model is saved on every path."""
        saved: dict[int, int] = {}
        merges = dict(source.steps_at(Action.MERGE))
        for path in source.paths:
            lost: dict[int, str] = {}
            for step in path.steps:
                start = step.call.span.start
                owner = _owner(source, step.call.span)
                if step.action is Action.MERGE and owner and _is_statement(source, step.call.span):
                    lost[start] = owner
                elif step.action is Action.SAVE:
                    for merge, name in lost.items():
                        saved[merge] = saved.get(merge, 0) + (name == owner)
        for call, steps in merges.items():
            name = _owner(source, call.span)
            if call.callee == "merge_and_unload" and saved.get(call.span.start, 0) >= len(steps) > 0:
                here = Span(call.span.start, call.span.start, call.span.line)
                edits = source.replace(here, f"{name} = ") if name.isidentifier() else ()
                yield self.violation(
                    "the merged model is dropped, and the model that is saved has no adapter weights left",
                    source.at(call),
                    surface=Surface.SOURCE,
                    fix=Fix(f"keep the result: {name} = {name}.merge_and_unload()", Safety.UNSAFE, edits)
                    if edits
                    else Fix("keep the result of merge_and_unload()", Safety.DISPLAY),
                )


def _owner(source: SourceFacts, span: Span) -> str:
    """Return the expression on which a method is called."""
    return source.code_of(span).partition("(")[0].rpartition(".")[0].strip()


def _is_statement(source: SourceFacts, span: Span) -> bool:
    """Return whether a call is a whole line."""
    start = source.line_start(span.start)
    end = source.text.find("\n", span.end)
    behind = source.text[span.end : end if end >= 0 else None].partition("#")[0]
    return not source.text[start : span.start].strip() and not behind.strip()
