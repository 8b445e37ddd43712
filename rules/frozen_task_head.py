"""Rule KB204: frozen-task-head."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, ClassVar

from kbitlint.facts.values import Call, last_name
from kbitlint.rule import Meta, Rule, Unchecked
from kbitlint.violation import Consequence, Fix, Location, Safety, Severity, Surface, Violation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kbitlint.context import TrainingContext
    from kbitlint.facts.model import ModelFacts
    from kbitlint.facts.source import SourceFacts
    from kbitlint.facts.values import Span

#: suffixes of task model classes, and the task types for which PEFT trains a copy of their heads
TASKS = {
    "ForSequenceClassification": "SEQ_CLS",
    "ForTokenClassification": "TOKEN_CLS",
    "ForQuestionAnswering": "QUESTION_ANS",
}
#: further classes with a head of the task, for which PEFT has no task type, and the arguments that ask for a new head
_FURTHER = ("ForImageClassification", "ForAudioClassification", "ForVideoClassification", "ForMultipleChoice", "ForCTC")
_ASKS = ("num_labels", "id2label", "label2id", "ignore_mismatched_sizes", "vocab_size")
_HEAD = re.compile("score|classifi|qa_outputs|head|dense|out_proj|linear|summary")


class FrozenTaskHead(Rule):
    """The head of a classification or question-answering model stays frozen while adapters train.

    ## What it does

    Reports the head of a task model (`score`, `classifier`, `qa_outputs`) if no parameter in it requires grad while
    adapters train.

    In a script, reports a LoRA config that names neither the task nor the head. The model must be loaded for sequence
    classification, token classification or question answering, or with labels of its own for the classification of images,
    sound or video. PEFT has no task type for the latter.

    ## Why is this bad?

    A language model has no such head. transformers initialises it at random and prints a line that is easily missed.
    `get_peft_model` freezes it with the rest of the base. The adapters then learn to fit a random projection that no
    file holds. Loading base and adapter again draws another one, and the predictions are noise.

    If the checkpoint contains a trained head, freezing it may be intended. The model alone does not reveal the
    difference.

    ## Example

    `AutoModelForSequenceClassification.from_pretrained("a-language-model", num_labels=2)` with
    `LoraConfig(target_modules=[...])` and no `task_type`.

    ## Fix

    Set `LoraConfig(task_type="SEQ_CLS")` (`TOKEN_CLS`, `QUESTION_ANS`), or `modules_to_save=["score"]`. PEFT then
    trains a copy of the head and saves it with the adapter.

    ## Fix safety

    Display only: unfreezing the base's own head would train it, but the adapter's file would not contain it.

    ## References

    - https://github.com/huggingface/peft/issues/1070
    - https://github.com/huggingface/peft/issues/602
    """

    meta: ClassVar[Meta] = Meta(
        code="KB204",
        slug="frozen-task-head",
        severity=Severity.WARNING,
        consequence=Consequence.TRAINS_NOTHING,
        since="0.1.0",
    )

    def check_model(self, model: ModelFacts, context: TrainingContext) -> Iterator[Violation]:
        """Yield one violation for each head without a trainable parameter."""
        heads = [head for head in model.heads if head.task]
        if not model.has_adapters:
            raise Unchecked("no adapters are attached yet")
        for head in heads:
            inside = [p for p in model.parameters if p.path.startswith(f"{head.path}.")]
            if model.trainable and not any(parameter.requires_grad for parameter in inside):
                yield self.violation(
                    "head is frozen: if the checkpoint had none, it is random and saved nowhere",
                    Location(head.path),
                    evidence={"task": head.task, "parameters": sum(parameter.numel for parameter in inside)},
                    fix=Fix(f'modules_to_save=["{head.path}"] in the adapter\'s config', Safety.DISPLAY),
                )

    def check_source(self, source: SourceFacts, context: TrainingContext) -> Iterator[Violation]:
        """Yield one violation for each LoRA config that leaves the head frozen on every path that trains the model."""
        left: dict[Span, tuple[Call, bool]] = {}
        for trained in source.trained():
            for model in trained.models:
                config = model.adapters.config if model.adapters is not None else None
                if isinstance(config, Call):
                    frozen = model.certain and model.base_frozen is True and _forgets(config, model.load)
                    _, so_far = left.get(config.span, (config, True))
                    left[config.span] = config, so_far and frozen
        for config, frozen in left.values():
            if frozen:
                yield self.violation(
                    "the head of the task stays frozen: if the checkpoint had none, it is random and saved nowhere",
                    source.at(config),
                    surface=Surface.SOURCE,
                    evidence={"task_type": str(config.value("task_type"))},
                    fix=Fix("give the config the task's task_type if PEFT has one, or modules_to_save", Safety.DISPLAY),
                )


def _forgets(config: Call, load: Call | None) -> bool:
    """Return whether a LoRA config is certain to train no parameter of a task model's head."""
    if load is None or not load.callee.startswith("transformers."):
        return False
    new = any(kind in load.callee for kind in _FURTHER) and any(load.argument(name) is not None for name in _ASKS)
    if not (new or any(kind in load.callee for kind in TASKS)):
        return False
    if config.callee != "peft.LoraConfig" or not config.complete or config.argument("0") is not None:
        return False
    task, saved, targets = (config.value(name) for name in ("task_type", "modules_to_save", "target_modules"))
    kind = last_name(task)
    if not (kind is None or isinstance(kind, str)) or kind in TASKS.values() or saved is not None:
        return False
    # a list names the ends of module paths; a string is a pattern, or "all-linear", which includes the head
    return targets is None or (
        isinstance(targets, tuple) and all(isinstance(name, str) and not _HEAD.search(name) for name in targets)
    )
