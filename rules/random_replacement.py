"""Rule KB578: random-replacement."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from kbitlint.rule import Meta, Rule
from kbitlint.violation import Consequence, Fix, Safety, Severity, Surface, Violation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kbitlint.context import TrainingContext
    from kbitlint.facts.source import SourceFacts


class RandomReplacement(Rule):
    """Layers are replaced by new quantized ones, and the weights are not copied.

    ## What it does

    Reports a function of the script that makes a `Linear4bit` or `Linear8bitLt` and puts it in the place of a layer with
    `setattr`, where the file copies no weight into it and loads no state dict.

    ## Why is this bad?

    The new layer has random weights. The base model is noise, and adapters are trained on it.

    ## Example

    `setattr(module, name, bnb.nn.Linear4bit(child.in_features, child.out_features))`.

    ## Fix

    Copy the weight: `new.weight = bnb.nn.Params4bit(child.weight.data, requires_grad=False)`.

    ## Fix safety

    Display only.

    ## References

    - https://github.com/bitsandbytes-foundation/bitsandbytes/issues/913
    """

    meta: ClassVar[Meta] = Meta(
        code="KB578",
        slug="random-replacement",
        severity=Severity.ERROR,
        consequence=Consequence.TRAINS_WRONG,
        since="0.2.0",
    )

    def check_source(self, source: SourceFacts, context: TrainingContext) -> Iterator[Violation]:
        """Yield one violation for each layer that takes no weights over."""
        for fault in source.object_faults:
            if fault.kind == "replaced":
                yield self.violation(
                    f"a new {fault.name} takes the place of a layer, and nothing copies the layer's weight into it",
                    source.at_line(fault.line, fault.name),
                    surface=Surface.SOURCE,
                    evidence={"class": fault.name},
                    fix=Fix("copy the weight and the bias of the layer", Safety.DISPLAY),
                )
