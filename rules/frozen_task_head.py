"""KB204."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from kbitlint.rule import Meta, Rule, Unchecked
from kbitlint.violation import Consequence, Fix, Location, Safety, Severity, Violation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kbitlint.context import TrainingContext
    from kbitlint.model.facts import ModelFacts


class FrozenTaskHead(Rule):
    """The head of a classification or question-answering model stays frozen while adapters train.

    ## What it does

    Reports the head of a model for a task (`score`, `classifier`, `qa_outputs`) in which nothing requires grad,
    although adapters are attached and train.

    ## Why is this bad?

    A language model has no such head: transformers initialises it at random, prints a line that is easily missed, and
    `get_peft_model` freezes it with the rest of the base. The adapters then learn to please a random projection that
    is saved nowhere: loading base and adapter again draws another one, and the predictions are noise. Where the
    checkpoint did bring a trained head, freezing it may be meant; a model does not tell the two apart.

    ## Example

    `AutoModelForSequenceClassification.from_pretrained("a-language-model", num_labels=2)` with
    `LoraConfig(target_modules=[...])` and no `task_type`.

    ## Fix

    `LoraConfig(task_type="SEQ_CLS")` (`TOKEN_CLS`, `QUESTION_ANS`), or `modules_to_save=["score"]`: PEFT then trains
    a copy of the head and saves it with the adapter.

    ## Fix safety

    Nothing is applied: unfreezing the base's own head would train it, but the adapter's file would not hold it.

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
        """One violation for each head without a trainable parameter."""
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
