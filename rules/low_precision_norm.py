"""Rule KB101: low-precision-norm."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from kbitlint.context import Strategy
from kbitlint.facts.dtypes import LOW_PRECISION
from kbitlint.rule import Meta, Rule, Unchecked
from kbitlint.violation import Consequence, Edit, Fix, Location, Safety, Severity, Violation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kbitlint.context import TrainingContext
    from kbitlint.facts.model import ModelFacts, NormFacts


class LowPrecisionNorm(Rule):
    """Norm weights of a quantized model in float16 or bfloat16.

    ## What it does

    Reports each normalisation layer of the base model whose own weights, biases or running statistics are float16 or
    bfloat16. The rule recognises a norm by the computation in its code, not by its name. It is skipped under FSDP1,
    which shards only parameters of one dtype.

    ## Why is this bad?

    The inputs of a norm come from dequantized weights and vary widely, and its parameters scale everything that
    follows. In float16 the statistics overflow above 65504, and the loss becomes NaN.

    In bfloat16 the range is safe, and most implementations compute in float32 internally. The only cost is that the
    weight itself is rounded to 8 bits. TRL measured no difference there and stopped upcasting. The message states the
    dtype, and whether the code of the norm computes in float32 or in the dtype of its weights.

    ## Example

    A checkpoint loaded with `dtype=torch.float16` and a 4-bit `BitsAndBytesConfig`: `model.norm.weight.dtype` is
    `torch.float16`.

    ## Fix

    The norm's parameters become float32 and its interface stays the same: inputs are cast to float32, and the output is
    cast back to the dtype of the input. The residual stream keeps its dtype, so no module after the norm changes.
    Embeddings and head are not changed (PEFT's `prepare_model_for_kbit_training` doubles those too).

    ## Fix safety

    Safe: the norm computes the same function in more digits. Unsafe for a bare parameter that acts as a norm in another
    module: it has no interface to preserve.

    ## References

    - Dettmers et al., QLoRA, https://arxiv.org/abs/2305.14314
    - https://github.com/huggingface/peft/issues/816
    - https://github.com/huggingface/trl/pull/4457
    """

    meta: ClassVar[Meta] = Meta(
        code="KB101",
        slug="low-precision-norm",
        severity=Severity.WARNING,
        consequence=Consequence.UNSTABLE,
        since="0.1.0",
    )

    def check_model(self, model: ModelFacts, context: TrainingContext) -> Iterator[Violation]:
        """Yield one violation for each norm with a half-precision tensor of its own."""
        if not model.quantized:
            raise Unchecked("no layer is quantized")
        if context.strategy is Strategy.FSDP1:
            raise Unchecked("FSDP1 shards parameters of one dtype only")
        for norm in model.norms:
            low = sorted({dtype for _, dtype in norm.dtypes if dtype in LOW_PRECISION})
            if low and not norm.adapter:
                yield self._violation(norm, low)

    def _violation(self, norm: NormFacts, low: list[str]) -> Violation:
        what = "parameter acting as a norm is" if norm.bare else "norm weights are"
        return self.violation(
            f"{what} {' and '.join(low)}, not float32{_computes(norm, low)}",
            Location(norm.path),
            evidence={"class": norm.class_name, "dtypes": dict(norm.dtypes), "bytes": norm.nbytes, "upcasts": norm.upcasts},
            fix=self._fix(norm),
        )

    @staticmethod
    def _fix(norm: NormFacts) -> Fix:
        if norm.bare:
            edit = Edit("float32-norm", norm.path, {"bare": True}, adds_bytes=norm.nbytes)
            return Fix("cast it to float32", Safety.UNSAFE, (edit,))
        edit = Edit(
            "float32-norm",
            norm.path,
            {"interface": "transparent", **({"output": norm.output_dtype} if norm.output_dtype else {})},
            adds_bytes=norm.nbytes,
        )
        return Fix("keep them in float32, same dtype in and out", Safety.SAFE, (edit,))


def _computes(norm: NormFacts, low: list[str]) -> str:
    """Return what the norm does with them; empty if its code cannot be read."""
    if norm.upcasts is None:
        return ""
    return "; the computation is in float32" if norm.upcasts else f"; the computation is in {' and '.join(low)} too"
