"""Rule KB322: repacked-by-evaluation."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from kbitlint.rule import Meta, Rule, Unchecked
from kbitlint.violation import Consequence, Fix, Location, Safety, Severity, Violation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kbitlint.context import TrainingContext
    from kbitlint.facts.model import ModelFacts


class RepackedByEvaluation(Rule):
    """An evaluation between two steps, after which packed weights on the CPU pass no gradient.

    ## What it does

    Looks for 4-bit layers of bitsandbytes on a CPU with AVX512-BF16, in a Trainer that evaluates before its last step.
    Nothing is reported if a checkpoint is saved right after each evaluation: saving packs the weights as they were.

    ## Why is this bad?

    In eval mode, bitsandbytes 0.50 packs each such weight again, for a kernel of the CPU that has no backward pass, and never
    turns it back. In the steps after the evaluation no gradient passes the layer, so what lies before it learns less. A layer
    with a bias adds it in place to the result of that kernel, and autograd raises `a view of a leaf Variable that requires
    grad is being used in an in-place operation`.

    ## Example

    `SFTConfig(use_cpu=True, eval_strategy="steps", eval_steps=50)` on an nf4 model.

    ## Fix

    Evaluate after the training, save a checkpoint at the same steps (`save_strategy="steps", save_steps=50`), or train on
    a GPU.

    ## Fix safety

    Display only: it is a setting of the run.

    ## References

    - https://github.com/bitsandbytes-foundation/bitsandbytes/pull/1804
    - https://github.com/bitsandbytes-foundation/bitsandbytes/issues/2078
    """

    meta: ClassVar[Meta] = Meta(
        code="KB322",
        slug="repacked-by-evaluation",
        severity=Severity.ERROR,
        consequence=Consequence.FAILS,
        since="0.2.0",
    )

    def check_model(self, model: ModelFacts, context: TrainingContext) -> Iterator[Violation]:
        """Yield at most one violation, at the first layer that fails or loses the gradient."""
        repacked = [layer for layer in model.quantized if layer.repacks and not layer.repacked]
        if not repacked:
            raise Unchecked("no layer repacks its weight in eval mode")
        if not context.evaluates:
            return
        biases = {parameter.path for parameter in model.parameters if parameter.path.endswith(".bias")}
        failing = [layer for layer in repacked if f"{layer.path}.bias" in biases]
        what = "raises: autograd refuses the bias that is added in place" if failing else "passes no gradient through it"
        yield self.violation(
            f"an evaluation repacks the weight for a kernel without gradients, and the next step {what}",
            Location((failing or repacked)[0].path),
            severity=None if failing else Severity.WARNING,
            consequence=None if failing else Consequence.TRAINS_WRONG,
            evidence={"layers": len(repacked), "biased": len(failing)},
            fix=Fix("evaluate after the training, or save a checkpoint right after each evaluation", Safety.DISPLAY),
        )
