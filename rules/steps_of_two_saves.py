"""Rule KB828: steps-of-two-saves."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from kbitlint.rule import Meta, Rule, Unchecked
from kbitlint.violation import Consequence, Fix, Location, Safety, Severity, Surface, Violation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kbitlint.context import TrainingContext
    from kbitlint.facts.checkpoint import CheckpointFacts


class StepsOfTwoSaves(Rule):
    """A folder to resume from whose files were saved at different steps.

    ## What it does

    Compares the N of `checkpoint-N`, `global_step` of trainer_state.json and the step of scheduler.pt. The schedule may be
    behind, because it is not stepped where the gradient scaler skips a step. It may also be ahead by a whole factor, which
    is how accelerate counts for several processes.

    ## Why is this bad?

    The run skips the data of one step, and takes the learning rate of another. A schedule that is further than the run
    ends early: it trains the rest at a learning rate of 0.

    ## Example

    scheduler.pt of `checkpoint-1000` in `checkpoint-500`, after a copy that was interrupted.

    ## Fix

    Resume from a folder whose files are of one save: an earlier one, if this was mixed up.

    ## Fix safety

    Display only: which of the files is the right one is not known.

    ## References

    - https://github.com/huggingface/transformers/issues/9099
    - https://huggingface.co/docs/transformers/main_classes/callback#transformers.TrainerState
    """

    meta: ClassVar[Meta] = Meta(
        code="KB828",
        slug="steps-of-two-saves",
        severity=Severity.WARNING,
        consequence=Consequence.UNSTABLE,
        since="0.1.0",
    )

    def check_files(self, checkpoint: CheckpointFacts, context: TrainingContext) -> Iterator[Violation]:
        """Yield one violation for each file whose step is another one."""
        resume = checkpoint.resume
        if resume is None or resume.state_step is None:
            raise Unchecked("no folder with a trainer_state.json that a run resumes from")
        step, scheduled = resume.state_step, resume.schedule_step
        if resume.named_step != step:
            yield self._violation(f"the folder is called checkpoint-{resume.named_step}, and its state is of step {step}")
        if scheduled is not None and scheduled > step and (not step or scheduled % step):
            yield self._violation(f"the schedule is at step {scheduled}, and the run at step {step}", "scheduler.pt")

    def _violation(self, what: str, file: str = "trainer_state.json") -> Violation:
        fix = Fix("resume from a folder whose files are of one save", Safety.DISPLAY)
        return self.violation(what, Location("", file), surface=Surface.FILES, fix=fix)
