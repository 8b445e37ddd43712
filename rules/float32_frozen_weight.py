"""Rule KB104: float32-frozen-weight."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from kbitlint.facts.dtypes import LOW_PRECISION
from kbitlint.facts.source import Action
from kbitlint.facts.step_bytes import WARN_FROM, is_cast_after_loading, step_bytes
from kbitlint.rule import Meta, Option, Rule
from kbitlint.upstream import families
from kbitlint.upstream.hub_names import stored_quantized
from kbitlint.upstream.versions import number
from kbitlint.violation import Consequence, Edit, Fix, Location, Safety, Severity, Surface, Violation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kbitlint.context import TrainingContext
    from kbitlint.facts.model import ModelFacts, NormFacts, ParameterFacts
    from kbitlint.facts.model_state import ModelState
    from kbitlint.facts.source import SourceFacts

#: the smallest vocabulary that a script's finding is about
_VOCABULARY = 100_000
#: bytes of float32 experts beyond those of 16 bits that fit no GPU of 80 GB beside the rest
_LARGE = 40e9
#: the share of the parameters of a model with experts that its stacked experts hold
_OF_EXPERTS = 0.95
_EIGHT_BITS = 8


class Float32FrozenWeight(Rule):
    """Frozen weights that take twice the bytes of the checkpoint's dtype.

    ## What it does

    Reports float32 matrices that are neither packed nor trained: embeddings, heads, fused experts, whole towers. The
    config must record half precision, or the quantized layers must compute in it. Two kinds of modules are not
    reported: norms, which should be float32, and modules that the class keeps in float32 by design. In a script, reports
    `prepare_model_for_kbit_training` for a checkpoint whose family has a vocabulary above 100,000, or stacked experts.

    ## Why is this bad?

    The values come from half precision and do not change, so the extra digits hold nothing. The evidence states their
    bytes: at Llama-3-8B shape, embeddings and head grow from 2.1 to 4.2 GB; at Mixtral-8x7B shape, unpacked experts
    grow from 90 to 180 GB. A float32 embedding also turns the residual stream float32.

    Autocast also copies a float32 head to half precision, which adds half of its bytes again.

    It is a warning if the extra bytes are a tenth of the step's peak (option `warn-from`), and an info below that. The
    peak is estimated for the batch of the context, or for one sequence of 2048 tokens. `kbitlint memory` measures it.

    ## Example

    `prepare_model_for_kbit_training(model)`, which casts every half-precision parameter that is not packed. Or a
    float32 checkpoint that is loaded without `dtype=`.

    ## Fix

    Store them in half precision again. If PEFT's prepare made them float32, `kbitlint.fix(model)` in its place does not.
    Also let float32 norms cast their output back to their input's dtype, because no
    later layer takes float32 any more.

    ## Fix safety

    Unsafe: activations become half precision again, so logits change. The weights themselves lose nothing if PEFT had
    cast them to float32.

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
        extra = sum(p.nbytes // 2 for p in matrices)
        cost = step_bytes(model, context)
        share = (extra + cost.cast) / cost.peak
        cause = ", as PEFT's prepare leaves it" if is_cast_after_loading(model) else ""
        vectors = {p.path: p for p in wide if len(p.shape) <= 1}
        rest = [_narrow(p, half) for p in vectors.values()] + [
            _transparent(n.path, n.output_dtype) for n in _float32_norms(model)
        ]
        for parameter in matrices:
            edits, rest = (_narrow(parameter, half), *rest), []
            yield self.violation(
                f"frozen weight is float32 in a {half} model{cause}"
                if model.dtype == half
                else f"frozen weight is float32 beside {half}",
                Location(parameter.path),
                severity=Severity.WARNING if share >= self.option("warn-from") else Severity.INFO,
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
        five = number(source.versions.get("transformers", "5")) >= (5,)
        for call, steps in source.steps_at(Action.PREPARE):
            if not call.callee.startswith("peft.prepare") or not all(_is_packed_half(step.before) for step in steps):
                continue
            costs = {_cost(step.before, five=five) for step in steps}
            cost = costs.pop()
            if costs or cost is None or (cost.share < self.option("warn-from") and not cost.experts):
                continue
            fails = cost.experts > _LARGE
            yield self.violation(
                f"the {cost.what} of {cost.checkpoint} become float32: {cost.extra / 1e9:.1f} GB more",
                source.at(call),
                surface=Surface.SOURCE,
                severity=Severity.ERROR if fails else Severity.WARNING,
                evidence={"extra_bytes": cost.extra, "checkpoint": cost.checkpoint},
                fix=Fix("leave the call out: get_peft_model freezes the base, and the arguments checkpoint", Safety.DISPLAY),
            )

    @staticmethod
    def _is_wide(parameter: ParameterFacts, model: ModelFacts) -> bool:
        ours = parameter.dtype == "float32" and not (
            parameter.requires_grad or parameter.adapter or parameter.norm or parameter.held
        )
        return ours and not any(f".{name}." in f".{parameter.path}." for name in model.keeps_float32)


@dataclass(frozen=True, slots=True)
class Cost:
    """What a preparation costs: bytes beyond those in half precision."""

    checkpoint: str
    what: str
    extra: int
    share: float
    """The share of the bytes of the quantized model."""
    experts: int = 0
    """The bytes of stacked experts among them."""


def _is_packed_half(model: ModelState) -> bool:
    return model.method == "bitsandbytes" and model.dtype != "float32" and model.load is not None


def _cost(model: ModelState, *, five: bool) -> Cost | None:
    """Return the cost of casting a model's unquantized weights to float32; None if its family does not tell it."""
    name = model.load.value("pretrained_model_name_or_path") if model.load is not None else None
    known = families.facts_of(name, model.named)
    if known.dtype == "float32" or not isinstance(name, str):
        return None
    architecture = known.architecture
    packed = known.billions * 1e9 * (0.55 if model.bits != _EIGHT_BITS else 1.05)
    if five and architecture is not None and architecture.experts and known.billions and not stored_quantized(name):
        experts = int(known.billions * 1e9 * _OF_EXPERTS * 2)
        return Cost(name, "stacked experts", experts, 1.0, experts)
    if known.vocabulary < _VOCABULARY or not known.hidden or not packed:
        return None
    extra = known.vocabulary * known.hidden * 2 * (1 if known.tied else 2)
    what = "embeddings" if known.tied else "embeddings and head"
    return Cost(name, what, extra, extra / packed)


def _narrow(parameter: ParameterFacts, half: str) -> Edit:
    return Edit("narrow-parameter", parameter.path, {"dtype": half}, adds_bytes=-(parameter.nbytes // 2))


def _float32_norms(model: ModelFacts) -> list[NormFacts]:
    return [norm for norm in model.norms if not (norm.bare or norm.adapter) and {d for _, d in norm.dtypes} == {"float32"}]


def _transparent(path: str, output: str | None) -> Edit:
    return Edit("float32-norm", path, {"interface": "transparent", **({"output": output} if output else {})})
