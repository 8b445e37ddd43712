"""Rule KB593: resume-from-new-folder."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from kbitlint.rule import Meta, Rule
from kbitlint.violation import Consequence, Fix, Safety, Severity, Surface, Violation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kbitlint.context import TrainingContext
    from kbitlint.facts.source import SourceFacts


class ResumeFromNewFolder(Rule):
    """A training resumes from the last checkpoint of a folder whose name is new with each start.

    ## What it does

    Reports `trainer.train(resume_from_checkpoint=True)` in a script whose only `output_dir` has the time, or a random text,
    in its name.

    ## Why is this bad?

    `True` asks for the last checkpoint in `output_dir`. That folder is empty, and `train()` raises a ValueError: "No valid
    checkpoint found in output directory".

    ## Example

    `output_dir=f"run-{datetime.now().strftime('%Y%m%d')}"` with `trainer.train(resume_from_checkpoint=True)`.

    ## Fix

    Name the folder of the run that goes on, or pass its checkpoint's path.

    ## Fix safety

    Display only.

    ## References

    - https://github.com/huggingface/transformers/issues/19290
    """

    meta: ClassVar[Meta] = Meta(
        code="KB593",
        slug="resume-from-new-folder",
        severity=Severity.ERROR,
        consequence=Consequence.FAILS,
        since="0.2.0",
    )

    def check_source(self, source: SourceFacts, context: TrainingContext) -> Iterator[Violation]:
        """Yield one violation for each training that resumes from a folder of its own start."""
        for fault in source.object_faults:
            if fault.kind == "new folder":
                yield self.violation(
                    f"output_dir is {fault.name}, a folder that is new with each start and has no checkpoint to resume from",
                    source.at_line(fault.line, "train"),
                    surface=Surface.SOURCE,
                    fix=Fix("name the folder of the run that goes on", Safety.DISPLAY),
                )
