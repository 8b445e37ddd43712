"""Rule KB633: redrawn-dropout."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from kbitlint.rule import Meta, Rule
from kbitlint.violation import Consequence, Fix, Location, Safety, Severity, Violation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kbitlint.context import TrainingContext
    from kbitlint.facts.model import ModelFacts


class RedrawnDropout(Rule):
    """Checkpointing draws new dropout masks when it computes a layer again.

    ## What it does

    Reports checkpointed layers that contain active dropout, LoRA's included, if their checkpoint function passes
    `preserve_rng_state=False`.

    ## Why is this bad?

    The backward pass computes the layer again. Without the saved random state it draws other masks than the forward
    pass. The gradients then belong to a function that gave another loss. Nothing raises; with a dropout of 0.3, gradients
    point as far off as a cosine of 0.66.

    ## Example

    `gradient_checkpointing_kwargs={"use_reentrant": False, "preserve_rng_state": False}` with `lora_dropout=0.05`.

    ## Fix

    Leave `preserve_rng_state` out, or set every dropout to 0.

    ## Fix safety

    Display only: the argument was passed on purpose.

    ## References

    - https://github.com/allenai/OLMo/pull/702
    - https://github.com/huggingface/transformers/issues/28499
    """

    meta: ClassVar[Meta] = Meta(
        code="KB633",
        slug="redrawn-dropout",
        severity=Severity.ERROR,
        consequence=Consequence.TRAINS_WRONG,
        since="0.1.0",
    )

    def check_model(self, model: ModelFacts, context: TrainingContext) -> Iterator[Violation]:
        """Yield one violation for each layer whose masks differ between its two passes."""
        for layer in model.checkpointing:
            inside = [path for path in model.dropouts if path.startswith(f"{layer.path}.")]
            if layer.redraws and inside:
                yield self.violation(
                    "dropout draws another mask when the layer is computed again: preserve_rng_state is False",
                    Location(layer.path),
                    evidence={"dropouts": len(inside), "first": inside[0]},
                    fix=Fix("leave preserve_rng_state out, or set dropout to 0", Safety.DISPLAY),
                )
