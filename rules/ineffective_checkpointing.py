"""KB405."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from kbitlint.rule import Meta, Rule
from kbitlint.violation import Consequence, Location, Severity, Surface, Violation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kbitlint.context import TrainingContext
    from kbitlint.facts.trace import TraceFacts


class IneffectiveCheckpointing(Rule):
    """Checkpointing is enabled on a layer that keeps its activations all the same.

    ## What it does

    Runs a training step without weights, in training mode, and reports layers whose checkpointing is on and inside
    which tensors are still saved for the backward pass.

    ## Why is this bad?

    The flag says that memory is saved, and none is: remote code that carries `gradient_checkpointing` without acting
    on it, a checkpoint function that only calls the layer, or a condition (`use_cache`, a mask of some kind) that
    leaves the checkpoint out.

    ## Example

    `layer._gradient_checkpointing_func = lambda function, *args: function(*args)`, left over from debugging.

    ## Fix

    Depends on the code: bind `torch.utils.checkpoint.checkpoint` with `use_reentrant=False`, or mend the condition.

    ## Fix safety

    Nothing is applied: the reason is in code.

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
        """One violation for each enabled layer that keeps what is computed in it."""
        kept: dict[str, int] = {}
        enabled = {layer.path for layer in trace.model.checkpointing if layer.is_layer and layer.path in trace.called}
        for saved in trace.saved:
            path = saved.path.rpartition(".")[0]  # what a layer itself saves are the checkpoint's own inputs
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
