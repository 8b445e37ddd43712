"""Rule KB827: resume-without-optimizer-state."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from kbitlint.rule import Meta, Rule, Unchecked
from kbitlint.violation import Consequence, Fix, Location, Safety, Severity, Surface, Violation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kbitlint.context import TrainingContext
    from kbitlint.facts.checkpoint import CheckpointFacts


class ResumeWithoutOptimizerState(Rule):
    """A folder `checkpoint-N` from which a resumed run starts with a new optimizer and a new schedule.

    ## What it does

    Reports a folder `checkpoint-N` without trainer_state.json, optimizer.pt or scheduler.pt. Shards of FSDP and DeepSpeed
    count as an optimizer's state.

    ## Why is this bad?

    Trainer reads optimizer.pt and scheduler.pt only if both exist. Otherwise it says nothing, and the run goes on with
    moments of zero and the learning rate of its first step, warm-up included. Without trainer_state.json it raises.
    A folder without both is what `save_only_model=True` writes on purpose, so that is an info.

    ## Example

    `checkpoint-500` was copied without scheduler.pt. The run resumes at step 500 with the learning rate of step 0.

    ## Fix

    Copy the whole folder. If only the weights are wanted, start a new run from the adapter.

    ## Fix safety

    Display only: the missing state cannot be restored.

    ## References

    - https://github.com/huggingface/transformers/issues/29059
    - https://github.com/huggingface/transformers/issues/9099
    - https://huggingface.co/docs/transformers/main_classes/trainer#transformers.TrainingArguments.save_only_model
    """

    meta: ClassVar[Meta] = Meta(
        code="KB827",
        slug="resume-without-optimizer-state",
        severity=Severity.WARNING,
        consequence=Consequence.UNSTABLE,
        since="0.1.0",
    )

    def check_files(self, checkpoint: CheckpointFacts, context: TrainingContext) -> Iterator[Violation]:
        """Yield one violation for what is missing."""
        resume = checkpoint.resume
        if resume is None:
            raise Unchecked("no folder that a run resumes from")
        have = {"optimizer.pt": resume.optimizer, "scheduler.pt": resume.scheduler}
        missing = [name for name, there in have.items() if not there]
        if resume.state_step is None:
            yield self.violation(
                "a resumed run raises: trainer_state.json is missing, or has no global_step",
                Location("", "trainer_state.json"),
                surface=Surface.FILES,
                severity=Severity.ERROR,
                consequence=Consequence.FAILS,
                fix=Fix("copy the whole folder", Safety.DISPLAY),
            )
        elif missing:
            yield self.violation(
                f"a resumed run starts with a new optimizer and schedule: {' and '.join(missing)} "
                f"{'is' if len(missing) == 1 else 'are'} missing",
                Location("", missing[0]),
                surface=Surface.FILES,
                severity=Severity.WARNING if len(missing) == 1 else Severity.INFO,
                evidence={"missing": missing},
                fix=Fix("copy the whole folder, or start a new run from its adapter", Safety.DISPLAY),
            )
