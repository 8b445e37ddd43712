"""Rule KB824: damaged-weights."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from kbitlint.rule import Meta, Rule, Unchecked
from kbitlint.violation import Consequence, Fix, Location, Safety, Severity, Surface, Violation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kbitlint.context import TrainingContext
    from kbitlint.facts.checkpoint import CheckpointFacts


class DamagedWeights(Rule):
    """A safetensors file or index whose contents are invalid.

    ## What it does

    Reports safetensors headers that are truncated, too long or not JSON. Reports headers whose tensors overlap, leave
    gaps or extend beyond the file. Reports an index that names missing files or tensors.

    ## Why is this bad?

    Loading stops, or fills the missing weights with random values. The usual cause is an interrupted download, or a Git
    LFS pointer in place of the file.

    ## Example

    The index names `model-00002-of-00004.safetensors`, and the file was not copied.

    ## Fix

    Download or save the file again.

    ## Fix safety

    Display only: the file has to be fetched or written again.

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
        """Yield one violation for each damaged file."""
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
