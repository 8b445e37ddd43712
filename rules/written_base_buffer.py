"""Rule KB321: written-base-buffer."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from kbitlint.rule import Meta, Rule
from kbitlint.violation import Consequence, Fix, Location, Safety, Severity, Surface, Violation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kbitlint.context import TrainingContext
    from kbitlint.facts.trace import TraceFacts


class WrittenBaseBuffer(Rule):
    """A buffer of the frozen base that every training step changes and that the adapter does not save.

    ## What it does
    Runs a training step without weights on a model with adapters. Reports the buffers of the base that the step writes, such as
    the running statistics of batch norm in training mode. Reports frozen embeddings with `max_norm`, which shorten their own
    rows. Buffers that no `state_dict` holds, and those of `modules_to_save`,
    are left out.

    ## Why is this bad?
    `requires_grad_(False)` freezes parameters only. The statistics follow the training data, and the adapter learns beside
    them. `save_pretrained` saves the adapter alone. Loaded on the base, it meets the old statistics and gives other outputs.

    ## Example
    LoRA on a speech encoder with convolution modules (Conformer, Parakeet), or on a vision tower with `BatchNorm2d`.

    ## Fix
    Put these modules into eval mode after each `model.train()`, or list them in `modules_to_save`.
    A copy in `modules_to_save` trains its weights too, and saves its statistics with them.

    ## Fix safety
    Display only: the user decides whether the statistics should follow the data.

    ## References
    - https://huggingface.co/docs/peft/developer_guides/troubleshooting
    - https://github.com/huggingface/peft/issues/1732
    """

    meta: ClassVar[Meta] = Meta(
        code="KB321",
        slug="written-base-buffer",
        severity=Severity.WARNING,
        consequence=Consequence.TRAINS_WRONG,
        since="0.2.0",
    )

    def check_trace(self, trace: TraceFacts, context: TrainingContext) -> Iterator[Violation]:
        """Yield one violation for each buffer."""
        for path in trace.written:
            yield self.violation(
                f"each step writes this {_what(path)} of the base, and the adapter does not save it",
                Location(path),
                surface=Surface.TRACE,
                fix=Fix("keep the module in eval mode, or list it in modules_to_save", Safety.DISPLAY),
            )


def _what(path: str) -> str:
    return "frozen weight" if path.endswith(".weight") else "buffer"
