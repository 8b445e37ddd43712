"""Rule KB306: inference-tensor."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from kbitlint.rule import Meta, Rule
from kbitlint.violation import Consequence, Fix, Location, Safety, Severity, Surface, Violation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kbitlint.context import TrainingContext
    from kbitlint.facts.model import ModelFacts
    from kbitlint.facts.model_state import ModelState
    from kbitlint.facts.source import SourceFacts
    from kbitlint.facts.trace import TraceFacts


class InferenceTensor(Rule):
    """Weights created under `torch.inference_mode`, which cannot be trained or trained through.

    ## What it does

    Reports trainable parameters that are inference tensors. Runs a training step without weights, and also reports the
    module whose backward pass needs a frozen one. Frozen inference tensors that no backward pass needs are not
    reported: embeddings, packed weights. In a script, reports a load or an attachment inside inference mode.

    ## Why is this bad?

    A tensor created under `torch.inference_mode()` has no version counter. Autograd does not record it and refuses to
    save it, and code outside of that mode cannot write into it. The first training step raises: in the forward pass
    (`Inference tensors cannot be saved for backward`), in the backward pass, or in the optimizer.

    ## Example

    A model that is loaded, or an adapter that is attached, in a function with the decorator `@torch.inference_mode()`.

    ## Fix

    Create the model outside of `torch.inference_mode()`. `torch.no_grad()` does no harm.

    ## Fix safety

    Display only: a tensor stays an inference tensor, and other objects may hold the parameters that a fix would
    replace.

    ## References

    - https://github.com/unslothai/unsloth-zoo/pull/137
    - https://github.com/facebookresearch/dinov2/issues/399
    """

    meta: ClassVar[Meta] = Meta(
        code="KB306",
        slug="inference-tensor",
        severity=Severity.ERROR,
        consequence=Consequence.FAILS,
        since="0.1.0",
    )

    def check_model(self, model: ModelFacts, context: TrainingContext) -> Iterator[Violation]:
        """Yield one violation for each trainable parameter; only a traced step knows which frozen ones are needed."""
        yield from self._trainable(model, Surface.MODEL)

    def check_source(self, source: SourceFacts, context: TrainingContext) -> Iterator[Violation]:
        """Yield one violation for each training of a model that every path loads under inference mode."""
        for trained in source.trained():
            load = trained.models[0].load
            inferred = all(model.inferred and not _is_cast(model) for model in trained.models)
            if load is not None and trained.certain and inferred:
                message = "the model is loaded under inference mode, so its tensors cannot take part in training"
                yield self.violation(message, source.at(load), surface=Surface.SOURCE, fix=_FIX)

    def check_trace(self, trace: TraceFacts, context: TrainingContext) -> Iterator[Violation]:
        """Yield one violation for each trainable parameter, and one at the module where the step is refused."""
        trainable = list(self._trainable(trace.model, Surface.TRACE))
        yield from trainable
        if trace.saves_inference_tensor and trace.failed_at not in {v.at.path.rpartition(".")[0] for v in trainable}:
            message = "a tensor created under inference mode is needed for the backward pass"
            yield self.violation(message, Location(trace.failed_at), surface=Surface.TRACE, fix=_FIX)

    def _trainable(self, model: ModelFacts, surface: Surface) -> Iterator[Violation]:
        for parameter in model.trainable:
            if parameter.inference:
                message = "a trainable parameter was created under inference mode"
                yield self.violation(message, Location(parameter.path), surface=surface, fix=_FIX)


def _is_cast(model: ModelState) -> bool:
    """Return whether a preparation has replaced all weights: PEFT casts those of a model that is not packed."""
    return model.prepared is not None and model.method is None


_FIX = Fix("create the model outside of torch.inference_mode()", Safety.DISPLAY)
