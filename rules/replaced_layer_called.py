"""Rule KB309: replaced-layer-called."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from kbitlint.rule import Meta, Rule
from kbitlint.violation import Consequence, Fix, Location, Safety, Severity, Surface, Violation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kbitlint.context import TrainingContext
    from kbitlint.facts.trace import TraceFacts


class ReplacedLayerCalled(Rule):
    """The forward calls layers that quantization has replaced, from a list of the module's own.

    ## What it does

    Runs a training step without weights. Reports linear layers in a plain list of a module that ran, are no part of the model,
    and have a quantized layer of the same features beside them.

    ## Why is this bad?

    Quantization replaces the registered child, and the list still holds the layer from before. It was never loaded if
    `from_pretrained` quantized the model, so the forward raises: `Tensor on device meta is not on the expected device`. If a
    script replaced the layers of a loaded model, the unquantized weights run. Adapters on the quantized layer get no gradient.

    ## Example

    `self.layers = [nn.Linear(...)]` with `self.add_module("0", self.layers[0])`, and a forward over `self.layers`:
    MaskFormer in transformers 5.23.

    ## Fix

    Leave these layers out of quantization (`llm_int8_skip_modules`), or let the forward call the registered children.

    ## Fix safety

    Display only: the layers have to be loaded again.

    ## References

    - https://github.com/huggingface/transformers/blob/v5.0.0/src/transformers/models/maskformer/modeling_maskformer.py
    """

    meta: ClassVar[Meta] = Meta(
        code="KB309",
        slug="replaced-layer-called",
        severity=Severity.ERROR,
        consequence=Consequence.FAILS,
        since="0.1.0",
    )

    def check_trace(self, trace: TraceFacts, context: TrainingContext) -> Iterator[Violation]:
        """Yield one violation for each module that calls such layers."""
        for path in dict.fromkeys(one.path for one in trace.replaced):
            here = [one for one in trace.replaced if one.path == path]
            lost = any(one.meta for one in here)
            yield self.violation(
                f"its forward calls {here[0].place.removeprefix(f'{path}.')}, which quantization replaced by {here[0].layer!r}"
                + (", and which has no weights" if lost else ""),
                Location(path),
                surface=Surface.TRACE,
                severity=Severity.ERROR if lost else Severity.WARNING,
                consequence=None if lost else Consequence.COSTS_MEMORY,
                evidence={"places": [one.place for one in here]},
                fix=Fix(f"leave {path or 'the module'} out of quantization", Safety.DISPLAY),
            )
