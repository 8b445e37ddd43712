"""Rule KB304: failing-training-step."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from kbitlint.rule import Meta, Rule
from kbitlint.violation import Consequence, Location, Severity, Surface, Violation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kbitlint.context import TrainingContext
    from kbitlint.facts.trace import TraceFacts


class FailingTrainingStep(Rule):
    """A training step that autograd, the model's class or PEFT stops, independent of the data.

    ## What it does

    Runs a training step without weights and reports the error that autograd raises. Examples: a tensor that requires
    grad is written in place; a value that the backward pass needs was overwritten; a checkpoint recomputes something
    else.

    Also reports what the model's class or PEFT raises for a batch of the class. A small copy of the class with weights
    must raise it too, and must not raise it without the adapters, or once its special tokens have numbers.

    ## Why is this bad?

    The first training step raises. These errors depend on flags and on the order of operations, not on values. A step
    without weights therefore raises them as a real step does.

    ## Example

    Whisper under `task_type="SEQ_2_SEQ_LM"`, for which PEFT passes `input_ids` to a model that reads sound. A
    classifier without `pad_token_id`: `Cannot handle batch sizes > 1 if no padding token is defined`.

    A hook that makes the embeddings' output require grad, on a model that writes into its embeddings in place (BLT,
    GIT): `a leaf Variable that requires grad is being used in an in-place operation`.

    ## Fix

    It depends on the cause. If the hook on the embeddings is the cause, checkpoint without reentry and without the
    hook, as `kbitlint.fix` does.

    ## Fix safety

    No fix is offered: the cause is in code or in a setting that the message names.

    ## References

    - https://github.com/huggingface/peft/issues/2826
    - https://github.com/huggingface/transformers/issues/28056
    - https://github.com/huggingface/transformers/issues/26334
    """

    meta: ClassVar[Meta] = Meta(
        code="KB304",
        slug="failing-training-step",
        severity=Severity.ERROR,
        consequence=Consequence.FAILS,
        since="0.1.0",
    )

    def check_trace(self, trace: TraceFacts, context: TrainingContext) -> Iterator[Violation]:
        """Yield at most one violation, at the module that ran when autograd raised."""
        if not trace.raises:
            return
        hooks = [hook.path for hook in trace.model.input_grad_hooks]
        yield self.violation(
            f"the training step raises {trace.failure}",
            Location(trace.failed_at),
            surface=Surface.TRACE,
            evidence={"input_grad_hooks": hooks, "batch": list(trace.batch)},
        )
