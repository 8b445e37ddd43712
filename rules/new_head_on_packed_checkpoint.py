"""Rule KB635: new-head-on-packed-checkpoint."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from kbitlint.facts.source import Action
from kbitlint.rule import Meta, Rule
from kbitlint.violation import Consequence, Fix, Safety, Severity, Surface, Violation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kbitlint.context import TrainingContext
    from kbitlint.facts.model_state import ModelState
    from kbitlint.facts.source import SourceFacts


#: The names of new heads, by the part of a class name.
HEADS = {
    "ForSequenceClassification": ("score", "classifier"),
    "ForTokenClassification": ("score", "classifier"),
    "ForQuestionAnswering": ("qa_outputs",),
}


class NewHeadOnPackedCheckpoint(Rule):
    """A checkpoint that is stored quantized is loaded with another head, which its list does not spare.

    ## What it does

    Reports `from_pretrained` of a task class on a bitsandbytes checkpoint on this machine, if the checkpoint was saved for
    another class and its `llm_int8_skip_modules` does not name the head of the task.

    ## Why is this bad?

    The checkpoint's own quantization config wins over one that is passed. Its list spares the old head only, so the new one
    is made as a packed layer. The checkpoint has no weights for it, and the initialisation of packed bytes raises
    `NotImplementedError: normal_kernel not implemented for 'Byte'`.

    ## Example

    `AutoModelForSequenceClassification.from_pretrained("model-bnb-4bit", num_labels=3)`.

    ## Fix

    Load the unquantized checkpoint with a config of your own, or add the head to the stored list and pass `config=`.

    ## Fix safety

    Display only: another checkpoint has to be chosen, or its config changed.

    ## References

    - https://github.com/unslothai/unsloth/issues/5027
    - https://github.com/huggingface/transformers/issues/25105
    """

    meta: ClassVar[Meta] = Meta(
        code="KB635",
        slug="new-head-on-packed-checkpoint",
        severity=Severity.ERROR,
        consequence=Consequence.FAILS,
        since="0.1.0",
    )

    def check_source(self, source: SourceFacts, context: TrainingContext) -> Iterator[Violation]:
        """Yield one violation for each load that makes a packed head on every path."""
        for call, steps in source.steps_at(Action.LOAD):
            heads = next((heads for kind, heads in HEADS.items() if kind in call.callee), None)
            if heads is None or call.argument("config") is not None:
                continue
            if all(_packs(step.before, call.callee, heads) for step in steps):
                yield self.violation(
                    f"the stored list does not spare the new head, {heads[0]}: it is packed and cannot be initialised",
                    source.at(call),
                    surface=Surface.SOURCE,
                    evidence={"heads": list(heads)},
                    fix=Fix("load the unquantized checkpoint, or add the head to the stored list", Safety.DISPLAY),
                )


def _packs(model: ModelState, callee: str, heads: tuple[str, ...]) -> bool:
    """Return whether the new head is certain to be packed."""
    named = model.named
    if named is None or named.skips is None or named.remote or model.method != "bitsandbytes":
        return False
    same = any(kind in callee and kind in named.architecture for kind in HEADS)
    return not same and not any(head in skip for skip in named.skips for head in heads)
