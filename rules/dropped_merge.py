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
    from kbitlint.facts.source import ExecutionPath, SourceFacts, Step
    from kbitlint.facts.values import Call


class DroppedMerge(Rule):
    """A merge takes the weights out of the adapter, and the adapter is saved after it.

    ## What it does

    Reports `merge_and_unload()` and `unload()`, if the file later saves the PeftModel itself: under the name on which the
    method was called, or by `save_model()` of the Trainer that holds it. If the merge is a statement of its own, its result is
    lost, and the report is there. Otherwise the report is at the save.

    ## Why is this bad?

    `merge_and_unload` returns the merged model. The PeftModel on which it is called keeps its class, but no longer has
    adapter layers. Its `save_pretrained` then writes an adapter file without tensors, 40 bytes long, and no merged
    weights. `Trainer.save_model` writes the same file. Nothing fails until the result is loaded.

    ## Example

    `model.merge_and_unload()`, then `model.save_pretrained('merged')`.

    ## Fix

    Keep the result: `model = model.merge_and_unload()`. To keep the adapter, save it before it is merged.

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
        """Yield one violation for each merge after which the model that it emptied is saved on every path."""
        for call, steps in source.steps_at(Action.MERGE, Action.UNLOAD):
            if call.callee not in ("merge_and_unload", "unload"):
                continue
            saves = [
                save
                for path in source.paths
                for step in path.steps
                if step.call == call and (save := _save(source, path, step))
            ]
            if len(saves) < len(steps):
                continue
            if call.callee == "merge_and_unload" and _is_statement(source, call.span) and saves[0].callee != "save_model":
                name = _owner(source, call.span)
                here = Span(call.span.start, call.span.start, call.span.line)
                edits = source.write(here, f"{name} = ") if name.isidentifier() else ()
                yield self.violation(
                    "the merged model is dropped, and the model that is saved has no adapter weights left",
                    source.at(call),
                    surface=Surface.SOURCE,
                    fix=Fix(f"keep the result: {name} = {name}.merge_and_unload()", Safety.UNSAFE, edits)
                    if edits
                    else Fix("keep the result of merge_and_unload()", Safety.DISPLAY),
                )
            else:
                yield self.violation(
                    f"the adapter that is saved is empty: {call.callee}() has taken its weights out before",
                    source.at(saves[0]),
                    surface=Surface.SOURCE,
                    evidence={"emptied_by": call.callee},
                    fix=Fix("save the adapter before that, or merge another copy", Safety.DISPLAY),
                )


def _save(source: SourceFacts, path: ExecutionPath, merge: Step) -> Call | None:
    """Return the first later call that saves the emptied PeftModel: by its name, or through the Trainer that holds it."""
    at = path.steps.index(merge)
    owner, target = _owner(source, merge.call.span), _target(source, merge.call.span)
    trained = [step.action is Action.TRAINER for step in path.steps if step.model_id == merge.model_id]
    for step in path.steps[at + 1 :]:
        if step.model_id != merge.model_id or step.call.span.start == merge.call.span.start:  # another model, or a chain
            continue
        if step.action in (Action.TRAINER, Action.ATTACH, Action.LOAD_ADAPTERS):
            return None
        saver = _owner(source, step.call.span)
        held = f"{saver}.model" if step.call.callee == "save_model" else saver
        between = source.text[merge.call.span.end : step.call.span.start]
        known = any(trained) if step.call.callee == "save_model" else saver == owner
        renewed = held == target or any(_assigns(line, held) for line in between.split("\n"))
        if step.action is Action.SAVE and saver and known and not renewed:
            return step.call
    return None


def _target(source: SourceFacts, span: Span) -> str:
    """Return the name to which a statement assigns the result of a call; empty if there is none."""
    before = source.text[source.line_start(span.start) : span.start].rstrip()
    return before[:-1].rstrip().rpartition(" ")[2] if before.endswith("=") else ""


def _assigns(line: str, name: str) -> bool:
    """Return whether a line assigns to a name."""
    target, sign, value = line.partition("=")
    return bool(sign) and target.strip() == name and not value.startswith("=")


def _owner(source: SourceFacts, span: Span) -> str:
    """Return the expression on which a method is called."""
    return source.code_of(span).partition("(")[0].rpartition(".")[0].strip()


def _is_statement(source: SourceFacts, span: Span) -> bool:
    """Return whether a call is a whole line."""
    start = source.line_start(span.start)
    end = source.text.find("\n", span.end)
    behind = source.text[span.end : end if end >= 0 else None].partition("#")[0]
    return not source.text[start : span.start].strip() and not behind.strip()
