"""KB824."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from kbitlint.rule import Meta, Rule, Unchecked
from kbitlint.violation import Consequence, Fix, Location, Safety, Severity, Surface, Violation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kbitlint.context import TrainingContext
    from kbitlint.facts.checkpoint import CheckpointFacts


class DamagedWeights(Rule):
    """A safetensors file or its index that cannot be what it says.

    ## What it does

    Reports headers that are cut off, too long, no JSON, or whose tensors overlap, leave gaps or reach beyond the
    file, and an index that names files or tensors which are not there.

    ## Why is this bad?

    Loading stops, or fills what is missing with fresh random weights. The usual cause is a download that broke off,
    or a Git LFS pointer in place of the file.

    ## Example

    `model-00002-of-00004.safetensors` is named in the index and was not copied.

    ## Fix

    Download or save the file again.

    ## Fix safety

    Shown only.

    ## References

    - https://github.com/huggingface/safetensors/issues/498
    - https://github.com/huggingface/peft/issues/2892
    """

    meta: ClassVar[Meta] = Meta(
        code="KB824",
        slug="damaged-weights",
        severity=Severity.ERROR,
        consequence=Consequence.FAILS,
        since="0.1.0",
    )

    def check_files(self, checkpoint: CheckpointFacts, context: TrainingContext) -> Iterator[Violation]:
        """One violation for each damaged file."""
        if not (checkpoint.tensors or checkpoint.adapter_tensors or checkpoint.damages):
            raise Unchecked("no safetensors headers here")
        for damage in checkpoint.damages:
            yield self.violation(
                damage.problem,
                Location("", damage.file),
                surface=Surface.FILES,
                evidence={"file": damage.file},
                fix=Fix("download or save the file again", Safety.DISPLAY),
            )
