"""Rule KB104: float32-frozen-weight."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from kbitlint.facts.dtypes import LOW_PRECISION
from kbitlint.facts.prepare_call import fix_instead
from kbitlint.facts.source import Action
from kbitlint.facts.step_bytes import WARN_FROM, is_cast_after_loading, step_bytes, tokens_of_step
from kbitlint.rule import Meta, Option, Rule
from kbitlint.upstream.upcast import cost_of_cast
from kbitlint.upstream.versions import number
from kbitlint.violation import Consequence, Edit, Fix, Location, Safety, Severity, Surface, Violation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kbitlint.context import TrainingContext
    from kbitlint.facts.model import ModelFacts, NormFacts, ParameterFacts
    from kbitlint.facts.source import SourceFacts


class Float32FrozenWeight(Rule):
    """Frozen weights that take twice the bytes of the checkpoint's dtype.

    ## What it does

    Reports float32 matrices that are neither packed nor trained: embeddings, heads, fused experts, whole towers. The
    config must record half precision, or the quantized layers must compute in it. Norms are not reported, and no modules
    that the class keeps in float32 by design. In a script, reports `prepare_model_for_kbit_training` for a checkpoint
    whose family has a vocabulary above 100,000, or stacked experts.

    ## Why is this bad?

    The values come from half precision and do not change, so the extra digits hold nothing. The evidence states their
    bytes: at Llama-3-8B shape, embeddings and head grow from 2.1 to 4.2 GB; at Mixtral-8x7B shape, unpacked experts
    grow from 90 to 180 GB. A float32 embedding also turns the residual stream float32. Autocast also copies a float32
    head to half precision, which adds half of its bytes again.

    It is a warning from a tenth of the step's peak on (option `warn-from`), and an info below. The peak is estimated for
    the batch of the context or the script, else one sequence of 2048 tokens. `kbitlint memory` measures it.

    ## Example

    `prepare_model_for_kbit_training(model)`, which casts every half-precision parameter that is not packed. Or a
    float32 checkpoint that is loaded without `dtype=`.

    ## Fix

    Store them in half precision, and let float32 norms cast their output back. If PEFT's prepare made them float32,
    `kbitlint.fix(model)` in its place does not: in a script, the unsafe fix replaces the call.

    ## Fix safety

    Unsafe: activations become half precision again, so logits change. The weights lose nothing if PEFT had cast them.

    ## References

    - https://github.com/huggingface/peft/issues/816
    - https://github.com/huggingface/peft/issues/3265
    - https://github.com/bitsandbytes-foundation/bitsandbytes/issues/1849
    """

    meta: ClassVar[Meta] = Meta(
        code="KB104",
        slug="float32-frozen-weight",
        severity=Severity.WARNING,
        consequence=Consequence.COSTS_MEMORY,
        since="0.1.0",
    )

    options: ClassVar[tuple[Option, ...]] = (
        Option("warn-from", WARN_FROM, "the share of the step's peak from which on the extra bytes are a warning"),
    )

    def check_model(self, model: ModelFacts, context: TrainingContext) -> Iterator[Violation]:
        """Yield one violation for each frozen float32 matrix."""
        compute = {facts.packing.compute_dtype for facts in model.quantized}
        half = next((dtype for dtype in (model.dtype, *sorted(map(str, compute))) if dtype in LOW_PRECISION), None)
        if half is None:
            return
        wide = [p for p in model.parameters if self._is_wide(p, model)]
        matrices = [p for p in wide if len(p.shape) > 1]
        if not matrices:
            return
        extra = sum(p.nbytes // 2 for p in matrices)
        cost = step_bytes(model, (context.batch_size, context.seq_len), context.autocast_dtype)
        share = (extra + cost.cast) / cost.peak
        cause = ", as PEFT's prepare leaves it" if is_cast_after_loading(model) else ""
        where = f"in a {half} model{cause}" if model.dtype == half else f"beside {half}"
        rest = [_narrow(p, half) for p in wide if len(p.shape) <= 1]
        rest += [_transparent(n.path, n.output_dtype) for n in _float32_norms(model)]
        for parameter in matrices:
            edits, rest = (_narrow(parameter, half), *rest), []
            yield self.violation(
                f"frozen weight is float32 {where}",
                Location(parameter.path),
                severity=self._severity(share),
                evidence={
                    "extra_bytes": parameter.nbytes // 2,
                    "extra_bytes_of_all": extra,
                    "share_of_peak": round(share, 3),
                    "shape": list(parameter.shape),
                },
                fix=Fix(f"store them in {half} again", Safety.UNSAFE, edits),
            )

    def check_source(self, source: SourceFacts, context: TrainingContext) -> Iterator[Violation]:
        """Yield one violation for each preparation that casts a large vocabulary, or stacked experts, on every path."""
        five, batch = number(source.versions.get("transformers", "5")) >= (5,), (context.batch_size, context.seq_len)
        for call, steps in source.steps_at(Action.PREPARE):
            tokens = tokens_of_step(source, call, batch)
            costs = {cost_of_cast(step.before, tokens, five=five) for step in steps}
            cost = costs.pop() if call.callee.startswith("peft.prepare") else None
            if costs or cost is None:
                continue
            yield self.violation(
                f"the {cost.what} of {cost.checkpoint} become float32: {cost.extra / 1e9:.1f} GB more",
                source.at(call),
                surface=Surface.SOURCE,
                severity=Severity.ERROR if cost.fits_no_gpu else self._severity(cost.share),
                evidence={"extra_bytes": cost.extra, "checkpoint": cost.checkpoint, "share_of_peak": round(cost.share, 3)},
                fix=fix_instead(source, call, bare=all(step.before.adapters is None for step in steps)),
            )

    def _severity(self, share: float) -> Severity:
        return Severity.WARNING if share >= self.option("warn-from") else Severity.INFO

    @staticmethod
    def _is_wide(parameter: ParameterFacts, model: ModelFacts) -> bool:
        other = parameter.dtype != "float32" or parameter.requires_grad or parameter.adapter or parameter.norm or parameter.held
        return not other and not any(f".{name}." in f".{parameter.path}." for name in model.keeps_float32)


def _narrow(parameter: ParameterFacts, half: str) -> Edit:
    return Edit("narrow-parameter", parameter.path, {"dtype": half}, adds_bytes=-(parameter.nbytes // 2))


def _float32_norms(model: ModelFacts) -> list[NormFacts]:
    return [norm for norm in model.norms if not (norm.bare or norm.adapter) and {d for _, d in norm.dtypes} == {"float32"}]


def _transparent(path: str, output: str | None) -> Edit:
    return Edit("float32-norm", path, {"interface": "transparent", **({"output": output} if output else {})})
