"""KB103."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from kbitlint.rule import Meta, Rule, Unchecked
from kbitlint.violation import Consequence, Edit, Fix, Location, Safety, Severity, Surface, Violation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kbitlint.context import TrainingContext
    from kbitlint.facts.trace import PromotionFacts, TraceFacts


class Float32ResidualStream(Rule):
    """The residual stream of a model whose quantized layers compute in half precision runs in float32.

    ## What it does

    Runs a training step without weights and reports the module that turns the hidden states of the layers into
    float32: a norm whose float32 weight promotes its output, or a float32 embedding.

    ## Why is this bad?

    4-bit layers give back the dtype that comes in, so one float32 tensor makes every activation of every later layer
    float32: what is saved for the backward pass grows by a third to a half, logits are float32, and kernels for half
    precision (flash attention) are refused or fall back.

    ## Example

    `prepare_model_for_kbit_training` on a bfloat16 checkpoint: embeddings, head and norms become float32, and the
    whole stream with them.

    ## Fix

    Where norms promote it: give their output back in the dtype that came in. A float32 embedding has to be loaded in
    half precision again; leaving out `prepare_model_for_kbit_training` and calling `kbitlint.fix(model)` instead
    keeps it so.

    ## Fix safety

    Safe: the norms still compute in float32; only what they hand on is rounded, as it was before they were cast.

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

    def check_trace(self, trace: TraceFacts, context: TrainingContext) -> Iterator[Violation]:
        """At most one violation, at the module where the stream turns float32."""
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
            fix = Fix("load the embeddings in half precision", Safety.DISPLAY) if entered else None
        else:
            fix = Fix("let float32 norms give back the dtype that came in", Safety.SAFE, edits)
        yield self.violation(
            f"{what}: {len(wide)} of {len(trace.layers)} layers pass on float32 while quantized layers compute in {half[0]}",
            Location(at),
            surface=Surface.TRACE,
            evidence={"layers": len(wide), "saved_bytes": trace.saved_bytes, "batch": list(trace.batch)},
            fix=fix,
        )

    @staticmethod
    def _origin(trace: TraceFacts, promoting: list[PromotionFacts], *, entered_wide: bool) -> tuple[str, str]:
        """(module, what it does) where the stream turns float32."""
        if not entered_wide and promoting:
            return promoting[0].path, f"{promoting[0].class_name} gives float32"
        if entered_wide:
            embedding = next((e.path for e in trace.model.embeddings if e.path in trace.called), "")
            return embedding, "the residual stream is float32 from its start"
        turning = next(layer.path for layer in trace.layers if layer.outgoing == "float32")
        return turning, "the residual stream turns float32"
