"""Rule KB102: dtype-mismatch."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from kbitlint.facts.dtypes import LOW_PRECISION
from kbitlint.facts.training import Loop
from kbitlint.rule import Meta, Rule
from kbitlint.upstream.norm_dtypes import promoted, widens
from kbitlint.violation import Consequence, Edit, Fix, Location, Safety, Severity, Surface, Violation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kbitlint.context import TrainingContext
    from kbitlint.facts.source import SourceFacts
    from kbitlint.facts.trace import TraceFacts


class DtypeMismatch(Rule):
    """Operands of different dtypes reach a kernel that accepts only one dtype.

    ## What it does

    Runs a training step without weights. Reports each module in which a kernel receives dtypes that the real kernel
    refuses. Examples: a float32 residual stream that enters a half-precision head; packed bytes that model code
    multiplies itself; float32 norm parameters beside a half-precision input, which CUDA's layer_norm refuses.

    In a script, reports a float32 head of a class of the script that gets the 16-bit output of a quantized model without a
    cast and without autocast.

    ## Why is this bad?

    The step raises `expected m1 and m2 to have the same dtype`. Autocast casts the operands of matrix products, so the
    same model can run in a loop with an autocast region. If autocast would help and its use is unknown, this is a
    warning. Pass `--amp no` or `--amp bf16` to state it. It is a warning, too, if a callback of yours casts the model
    when the training begins.

    ## Example

    `for p in model.parameters(): if p.ndim == 1: p.data = p.data.float()`: the norms promote the residual stream to
    float32, and the bfloat16 `lm_head` refuses it.

    ## Fix

    If float32 norms promote the stream, cast their output back to the dtype of their input.

    Some model code creates a float32 tensor and multiplies it with its input (DeBERTa, FNet, XLNet, xLSTM). Run that
    module in float32 and cast its output back. This fix is offered only if a step without weights runs with it.

    ## Fix safety

    Safe: values that are computed in float32 are rounded once, at the output.

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

    def check_source(self, source: SourceFacts, context: TrainingContext) -> Iterator[Violation]:
        """Yield one violation for each float32 head that gets a 16-bit output, and for float32 norms before a 16-bit head."""
        yield from self._promoted(source)
        heads = [head for head in source.heads if head.uncast_at]
        if not heads or widens(source.text):
            return
        models = [model for path in source.paths for model in path.models.values() if model.load is not None]
        dtypes = {model.dtype for model in models if model.kbit and model.prepared is None and model.certain}
        if len(dtypes) != 1 or not dtypes <= set(LOW_PRECISION) or not all(model.kbit for model in models):
            return
        if any(model.prepared is not None for model in models):
            return
        dtype = dtypes.pop()
        for head in heads:
            yield self.violation(
                f"the float32 {head.name} gets the {dtype} output of {head.body}, and no autocast region surrounds it",
                source.at_line(head.uncast_at, head.name),
                surface=Surface.SOURCE,
                evidence={"head": head.name, "made_at": head.line, "dtype": dtype},
                fix=Fix(f"cast the output to float32 before {head.name}, or train under torch.autocast", Safety.DISPLAY),
            )

    def _promoted(self, source: SourceFacts) -> Iterator[Violation]:
        for trained in source.trained():
            model, trainer = trained.models[0], trained.paths[0].loop is Loop.TRAINER
            plain = not trainer or all(training.bf16 is False and training.fp16 is False for training in trained.paths)
            if model.widened is None or not plain or not all(map(promoted, trained.models)) or widens(source.text):
                continue
            yield self.violation(
                f"the float32 {promoted(model)} meet what is in half precision, and no autocast region surrounds the step",
                source.at(model.widened),
                surface=Surface.SOURCE,
                fix=Fix("call prepare_model_for_kbit_training in place of the cast, or train with bf16=True", Safety.DISPLAY),
            )

    def check_trace(self, trace: TraceFacts, context: TrainingContext) -> Iterator[Violation]:
        """Yield one violation for each module and operator that would raise."""
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
        if fix is None and trace.float32_outputs:
            heads = tuple(
                Edit("float32-module", path, {"output": "float32"}, adds_bytes=_widened(path, trace))
                for path in trace.float32_outputs
            )
            fix = Fix("let the heads give float32 to the loss", Safety.SAFE, heads)
        for refusal in trace.refusals:
            absorbed = trace.absorbed and context.autocast_dtype is None
            unless = " outside an autocast region; in one it runs" if absorbed else ""
            unless += f", unless {context.cast_by} casts it" if context.cast_by else ""
            dtypes = " and ".join(dict.fromkeys(refusal.dtypes)) or "its operands"
            where = "the backward pass of " * refusal.in_backward + refusal.operator
            yield self.violation(
                f"{where} refuses {dtypes}{unless}",
                Location(refusal.path),
                surface=Surface.TRACE,
                severity=Severity.WARNING if unless else Severity.ERROR,
                evidence={"operator": refusal.operator, "dtypes": list(refusal.dtypes), "device": trace.device},
                fix=fix,
            )


def _widened(path: str, trace: TraceFacts) -> int:
    """Return the bytes that a module's own half-precision parameters gain in float32."""
    own = (p for p in trace.model.parameters if p.module == path and p.dtype in ("float16", "bfloat16"))
    return sum(parameter.nbytes for parameter in own)
