"""Rule KB405: ineffective-checkpointing."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from kbitlint.rule import Meta, Rule
from kbitlint.violation import Consequence, Location, Severity, Surface, Violation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kbitlint.context import TrainingContext
    from kbitlint.facts.trace import TraceFacts


class IneffectiveCheckpointing(Rule):
    """Checkpointing is enabled on a layer that still keeps its activations.

    ## What it does

    Runs a training step without weights, in training mode. Reports layers whose checkpointing is enabled and whose
    submodules still save tensors for the backward pass.

    ## Why is this bad?

    The flag promises less memory, and no memory is saved. There are three typical causes. Remote code has
    `gradient_checkpointing` and ignores it. A checkpoint function only calls the layer. Or a condition (`use_cache`,
    some kind of mask) skips the checkpoint.

    ## Example

    `layer._gradient_checkpointing_func = lambda function, *args: function(*args)`, left over from debugging.

    ## Fix

    It depends on the code: bind `torch.utils.checkpoint.checkpoint` with `use_reentrant=False`, or correct the
    condition.

    ## Fix safety

    No fix is offered: the cause is in code.

    ## References

    - https://github.com/huggingface/peft/issues/3347
    - https://github.com/huggingface/transformers/issues/24463
    - https://github.com/xfactlab/orpo/issues/9
    """

    meta: ClassVar[Meta] = Meta(
        code="KB405",
        slug="ineffective-checkpointing",
        severity=Severity.WARNING,
        consequence=Consequence.COSTS_MEMORY,
        since="0.1.0",
    )

    def check_trace(self, trace: TraceFacts, context: TrainingContext) -> Iterator[Violation]:
        """Yield one violation for each checkpointed layer that keeps its activations."""
        kept: dict[str, int] = {}
        enabled = {layer.path for layer in trace.model.checkpointing if layer.is_layer and layer.path in trace.called}
        for saved in trace.saved:
            path = saved.path.rpartition(".")[0]  # a layer itself saves only the inputs of its checkpoint
            while path and path not in enabled:
                path = path.rpartition(".")[0]
            if path:
                kept[path] = kept.get(path, 0) + saved.nbytes
        for path, nbytes in kept.items():
            yield self.violation(
                "checkpointing is enabled, and the layer keeps its activations all the same",
                Location(path),
                surface=Surface.TRACE,
                evidence={"saved_bytes": nbytes, "batch": list(trace.batch)},
            )
