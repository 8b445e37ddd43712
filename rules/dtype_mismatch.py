"""KB102."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from kbitlint.rule import Meta, Rule
from kbitlint.violation import Consequence, Edit, Fix, Location, Safety, Severity, Surface, Violation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kbitlint.context import TrainingContext
    from kbitlint.facts.trace import TraceFacts


class DtypeMismatch(Rule):
    """Operands of different dtypes meet in a kernel that takes one dtype only.

    ## What it does

    Runs a training step without weights and reports each module in which a kernel is given dtypes that the real one
    refuses: a float32 stream that enters a half-precision head, packed bytes that code multiplies itself, float32
    norm parameters that CUDA's layer_norm does not take beside a half-precision input.

    ## Why is this bad?

    The step raises: `expected m1 and m2 to have the same dtype`. Autocast casts the operands of matrix products, so
    the same model may run in a loop that opens an autocast region. Where it is not known whether the loop does, and
    the region would help, this is a warning; pass `--amp no` or `--amp bf16` to say it.

    ## Example

    `for p in model.parameters(): if p.ndim == 1: p.data = p.data.float()`: the norms promote the residual stream to
    float32, and the bfloat16 `lm_head` refuses it.

    ## Fix

    Where float32 norms promote the stream: give their output back in the dtype that came in. Where code makes a float32
    tensor of its own and multiplies it with what comes in (DeBERTa, FNet, XLNet, xLSTM): let that module compute in
    float32 and give back the dtype that came in, if a step without weights runs with it.

    ## Fix safety

    Safe: what is computed in float32 is rounded once, on the way out.

    ## References

    - https://github.com/huggingface/peft/issues/1249
    - https://github.com/huggingface/peft/issues/816
    - https://github.com/artidoro/qlora/issues/221
    """

    meta: ClassVar[Meta] = Meta(
        code="KB102",
        slug="dtype-mismatch",
        severity=Severity.ERROR,
        consequence=Consequence.FAILS,
        since="0.1.0",
    )

    def check_trace(self, trace: TraceFacts, context: TrainingContext) -> Iterator[Violation]:
        """One violation for each module and operator that would raise."""
        norms = [norm for norm in trace.model.norms if norm.promotes]
        promoting = norms if {norm.path for norm in norms} & {facts.path for facts in trace.promotions} else []
        edits = tuple(
            Edit("float32-norm", n.path, {"interface": "transparent"} | ({"output": n.output_dtype} if n.output_dtype else {}))
            for n in promoting
        )
        fix = Fix("let float32 norms give back the dtype that came in", Safety.SAFE, edits) if edits else None
        if fix is None and trace.float32_modules:
            widened = tuple(Edit("float32-module", path, adds_bytes=_widened(path, trace)) for path in trace.float32_modules)
            fix = Fix("let what refuses compute in float32, same dtype in and out", Safety.SAFE, widened)
        for refusal in trace.refusals:
            absorbed = trace.absorbed and context.autocast_dtype is None
            dtypes = " and ".join(dict.fromkeys(refusal.dtypes)) or "its operands"
            where = "the backward pass of " * refusal.in_backward + refusal.operator
            yield self.violation(
                f"{where} refuses {dtypes}" + (" outside an autocast region; in one it runs" if absorbed else ""),
                Location(refusal.path),
                surface=Surface.TRACE,
                severity=Severity.WARNING if absorbed else Severity.ERROR,
                evidence={"operator": refusal.operator, "dtypes": list(refusal.dtypes), "device": trace.device},
                fix=fix,
            )


def _widened(path: str, trace: TraceFacts) -> int:
    """Bytes that a module's own half-precision parameters take more in float32."""
    own = (p for p in trace.model.parameters if p.module == path and p.dtype in ("float16", "bfloat16"))
    return sum(parameter.nbytes for parameter in own)
