"""Rule KB921: collective-mismatch."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from kbitlint.rule import Meta, Rule
from kbitlint.violation import Consequence, Severity, Surface, Violation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kbitlint.context import TrainingContext
    from kbitlint.facts.rehearsal import RehearsalFacts


class CollectiveMismatch(Rule):
    """A rank that waits in a collective which the other ranks do not enter, or enter with other tensors.

    ## What it does

    Rehearses a script on as many ranks as its launcher starts, on gloo. torch compares the collectives of all ranks before
    each one. Reports the line at which a rank waits: another rank has ended, calls another collective, or brings a tensor of
    another shape.

    ## Why is this bad?

    On NCCL no error names the cause. The ranks hang until the watchdog ends them, 10 minutes later by default. Where only the
    sizes or dtypes of tensors differ, they hang or compute wrong values.

    ## Example

    `if accelerator.is_main_process:` around a call that gathers or saves on all ranks, such as `accelerator.gather`.

    ## Fix

    Let every rank reach the same collectives in the same order: move the call out of the branch, or give the branch's
    counterpart the same call. Pad tensors to one size first, as `accelerator.pad_across_processes` does.

    ## Fix safety

    No fix is offered: the cause is in code.

    ## References

    - https://github.com/huggingface/accelerate/issues/2785
    - https://github.com/NVIDIA/nccl/issues/1417
    - https://github.com/pytorch/pytorch/issues/150433
    """

    meta: ClassVar[Meta] = Meta(
        code="KB921",
        slug="collective-mismatch",
        severity=Severity.ERROR,
        consequence=Consequence.FAILS,
        since="0.2.0",
    )

    def check_rehearsal(self, rehearsal: RehearsalFacts, context: TrainingContext) -> Iterator[Violation]:
        """Yield one violation for each line at which a rank waits."""
        for stall in rehearsal.stalls:
            where = (
                f"rank {stall.rank} waits here for the other ranks"
                if stall.waits
                else "the ranks run different collectives here"
            )
            yield self.violation(
                f"{where}: {stall.meanwhile}",
                stall.at,
                surface=Surface.REHEARSAL,
                evidence={"rank": stall.rank, "meanwhile": stall.meanwhile},
            )
