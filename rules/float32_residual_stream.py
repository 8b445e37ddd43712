"""Rule KB103: float32-residual-stream."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from kbitlint.facts.step_bytes import WARN_FROM, is_cast_after_loading, step_bytes
from kbitlint.rule import Meta, Option, Rule, Unchecked
from kbitlint.violation import Consequence, Edit, Fix, Location, Safety, Severity, Surface, Violation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kbitlint.context import TrainingContext
    from kbitlint.facts.trace import PromotionFacts, TraceFacts


class Float32ResidualStream(Rule):
    """The residual stream runs in float32 while the quantized layers compute in half precision.

    ## What it does

    Runs a training step without weights. Reports the module that turns the hidden states of the layers into float32: a
    norm whose float32 weight promotes its output, or a float32 embedding.

    ## Why is this bad?

    4-bit layers return the dtype of their input, so one float32 tensor makes every activation of every later layer
    float32. The memory that is saved for the backward pass grows by a third to a half, and logits are float32. Kernels
    for half precision (flash attention) refuse float32 or fall back. Training works and learns.

    It is a warning if the extra bytes are a tenth of the step's peak (option `warn-from`), and an info below that. The
    peak is estimated for the batch of the context, or for one sequence of 2048 tokens. `kbitlint memory` measures it.

    ## Example

    `prepare_model_for_kbit_training` on a bfloat16 checkpoint: embeddings, head and norms become float32, and so does
    the whole stream.

    ## Fix

    If norms promote the stream, cast their output back to the dtype of their input. If PEFT's prepare made the
    embedding float32, call `kbitlint.fix(model)` in its place: it freezes the base, keeps the norms in float32 and leaves
    the stream in half precision. If the embedding was loaded in float32, load it in half precision.

    ## Fix safety

    Safe: the norms still compute in float32. Only their output is rounded, as it was before they were cast. Display
    only for a float32 embedding.

    ## References

    - https://github.com/huggingface/peft/issues/3265
    - https://github.com/huggingface/peft/issues/816
    - https://github.com/huggingface/trl/pull/4457
    """

    meta: ClassVar[Meta] = Meta(
        code="KB103",
        slug="float32-residual-stream",
        severity=Severity.WARNING,
        consequence=Consequence.COSTS_MEMORY,
        since="0.1.0",
    )

    options: ClassVar[tuple[Option, ...]] = (
        Option("warn-from", WARN_FROM, "the share of the step's peak from which on the extra bytes are a warning"),
    )

    def check_trace(self, trace: TraceFacts, context: TrainingContext) -> Iterator[Violation]:
        """Yield at most one violation, at the module where the stream turns float32."""
        compute = {facts.packing.compute_dtype for facts in trace.model.quantized}
        half = sorted(dtype for dtype in compute if dtype in ("bfloat16", "float16"))
        if not half:
            raise Unchecked("no quantized layer is known to compute in half precision")
        wide = [layer for layer in trace.layers if "float32" in (layer.incoming, layer.outgoing)]
        if not wide:
            return
        norms = {norm.path: norm for norm in trace.model.norms if norm.promotes}
        promoting = [facts for facts in trace.promotions if facts.path in norms]
        entered = trace.layers[0].incoming == "float32"
        at, what = self._origin(trace, promoting, entered_wide=entered)
        edits = tuple(Edit("float32-norm", path, {"interface": "transparent"}) for path in norms) if promoting else ()
        if entered or not edits:
            fix = _by_hand(trace) if entered else None
        else:
            fix = Fix("let float32 norms give back the dtype that came in", Safety.SAFE, edits)
        cost = step_bytes(trace.model, (context.batch_size, context.seq_len), context.autocast_dtype)
        share = cost.stream / cost.peak
        yield self.violation(
            f"{what}: {len(wide)} of {len(trace.layers)} layers pass on float32 while quantized layers compute in {half[0]}",
            Location(at),
            surface=Surface.TRACE,
            severity=Severity.WARNING if share >= self.option("warn-from") else Severity.INFO,
            evidence={
                "layers": len(wide),
                "saved_bytes": trace.saved_bytes,
                "batch": list(trace.batch),
                "extra_bytes": cost.stream,
                "share_of_peak": round(share, 3),
            },
            fix=fix,
        )

    @staticmethod
    def _origin(trace: TraceFacts, promoting: list[PromotionFacts], *, entered_wide: bool) -> tuple[str, str]:
        """Return (path, description) of the module that turns the stream float32."""
        if not entered_wide and promoting:
            return promoting[0].path, f"{promoting[0].class_name} gives float32"
        if entered_wide:
            embedding = next((e.path for e in trace.model.embeddings if e.path in trace.called), "")
            cause = ", as PEFT's prepare makes the embeddings" if is_cast_after_loading(trace.model) else ""
            return embedding, f"the residual stream is float32 from its start{cause}"
        wide = [layer for layer in trace.layers if "float32" in (layer.incoming, layer.outgoing)]
        turning = next(
            (layer for layer in wide if layer.outgoing == "float32"), wide[0]
        )  # code between layers may cast as well
        return turning.path, "the residual stream turns float32"


def _by_hand(trace: TraceFacts) -> Fix:
    """Return what to do about embeddings in float32: it depends on what made them so."""
    if is_cast_after_loading(trace.model):
        return Fix("call kbitlint.fix(model) in place of prepare_model_for_kbit_training", Safety.DISPLAY)
    return Fix("load the embeddings in half precision", Safety.DISPLAY)
