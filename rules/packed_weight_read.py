"""Rule KB503: packed-weight-read."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from kbitlint.rule import Meta, Rule
from kbitlint.violation import Consequence, Fix, Location, Safety, Severity, Surface, Violation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kbitlint.context import TrainingContext
    from kbitlint.facts.trace import TraceFacts


class PackedWeightRead(Rule):
    """Code that uses the packed bytes of a quantized layer as its weight.

    ## What it does

    Runs a training step without weights. Reports each quantized layer whose packed bytes reach an operator directly,
    not through the layer's own forward. The evidence names the module whose code reads them.

    ## Why is this bad?

    A 4-bit weight is stored as one column of bytes. `F.linear(x, self.proj.weight)`, `self.proj.weight[:n]` or
    `self.dt_proj.weight @ x` then raises a shape or dtype error. If the code casts the bytes first, as PEANuT of PEFT
    does in 8 bits, it computes with values without their scales, and the severity is warning.

    ## Example

    The router of LongCat-Flash and the mixer of Mamba multiply with `.weight` themselves. So does remote code that
    slices projections.

    ## Fix

    Leave the layer out of quantization: name it in `llm_int8_skip_modules`.

    ## Fix safety

    Display only: the model has to be loaded again.

    ## References

    - https://github.com/bitsandbytes-foundation/bitsandbytes/issues/963
    - https://github.com/bitsandbytes-foundation/bitsandbytes/issues/1331
    - https://github.com/bitsandbytes-foundation/bitsandbytes/issues/610
    """

    meta: ClassVar[Meta] = Meta(
        code="KB503",
        slug="packed-weight-read",
        severity=Severity.ERROR,
        consequence=Consequence.FAILS,
        since="0.1.0",
    )

    def check_trace(self, trace: TraceFacts, context: TrainingContext) -> Iterator[Violation]:
        """Yield one violation for each quantized layer whose weight other code reads."""
        for read in trace.packed_reads:
            name = read.path.removesuffix(".base_layer").rpartition(".")[2]
            yield self.violation(
                f"code computes with the packed weight of {name} instead of calling it",
                Location(read.path),
                surface=Surface.TRACE,
                severity=Severity.WARNING if read.cast else None,
                consequence=Consequence.TRAINS_WRONG if read.cast else None,
                evidence={"reader": read.reader, "operator": read.operator, "failure": trace.failure},
                fix=Fix(f'load with llm_int8_skip_modules=["{name}", "lm_head"]', Safety.DISPLAY),
            )
