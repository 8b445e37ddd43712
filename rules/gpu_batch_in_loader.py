"""Rule KB591: gpu-batch-in-loader."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from kbitlint.rule import Meta, Rule
from kbitlint.violation import Consequence, Fix, Safety, Severity, Surface, Violation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kbitlint.context import TrainingContext
    from kbitlint.facts.source import SourceFacts


class GpuBatchInLoader(Rule):
    """A collator or a data set puts its tensors onto the GPU inside of the loader.

    ## What it does

    Reports a collator of the script that moves tensors to CUDA, and a format with `device="cuda"`, for a Trainer that pins
    its batches, as it does by default, and for a loader that pins them or has worker processes.

    ## Why is this bad?

    The loader copies a batch into pinned memory of the host, which refuses tensors of a GPU. A worker process is forked from
    one that uses CUDA already, and cannot use it. The first batch raises a RuntimeError.

    ## Example

    `def collate(rows): return {k: v.cuda() for k, v in pad(rows).items()}` for `Trainer(data_collator=collate)`.

    ## Fix

    Return tensors of the CPU. The Trainer moves each batch to the device of its model.

    ## Fix safety

    Display only.

    ## References

    - https://github.com/pytorch/pytorch/issues/35866
    """

    meta: ClassVar[Meta] = Meta(
        code="KB591",
        slug="gpu-batch-in-loader",
        severity=Severity.ERROR,
        consequence=Consequence.FAILS,
        since="0.2.0",
    )

    def check_source(self, source: SourceFacts, context: TrainingContext) -> Iterator[Violation]:
        """Yield one violation for each loader that gets batches on the GPU."""
        for fault in source.object_faults:
            if fault.kind == "gpu batch":
                yield self.violation(
                    f"{fault.name} puts tensors onto the GPU, and {fault.detail}",
                    source.at_line(fault.line, fault.name),
                    surface=Surface.SOURCE,
                    evidence={"maker": fault.name},
                    fix=Fix("return tensors of the CPU: the Trainer, or the loop, moves each batch", Safety.DISPLAY),
                )
