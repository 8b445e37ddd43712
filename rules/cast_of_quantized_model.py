"""Rule KB122: cast-of-quantized-model."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from kbitlint.facts.source import Action
from kbitlint.rule import Meta, Rule
from kbitlint.violation import Consequence, Fix, Safety, Severity, Surface, Violation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kbitlint.context import TrainingContext
    from kbitlint.facts.model_state import ModelState
    from kbitlint.facts.source import SourceFacts
    from kbitlint.facts.values import Call

FOUR = 4


class CastOfQuantizedModel(Rule):
    """A quantized model is cast to another dtype after loading.

    ## What it does

    Reports `half()`, `float()` and `to(dtype)` on a bitsandbytes model: an error. Reports casts of the PeftModel around
    it to float16 or bfloat16: a warning.

    Also reports a move of the bare model to a device, `to('cuda')` or `cuda()`, in versions of transformers that refuse it.

    PEFT's `cast_mixed_precision_params` casts every parameter, packed bytes included: an error on 4 bits, because the first
    step raises.

    Two casts are not reported: a PeftModel to float32, the usual dtype of adapters and norms; and `bfloat16()` on the
    bare model, which transformers does not refuse.

    ## Why is this bad?

    transformers refuses to cast the bare model: `half()`, `float()` and `to` with a dtype raise a ValueError. A
    PeftModel has no such check, so the cast reaches adapters, norms and embeddings. Adapters then train in 16 bits, and
    norms lose their float32.

    ## Example

    `model = get_peft_model(model, config).half()`.

    ## Fix

    Remove the cast, and choose the dtype with `from_pretrained(..., dtype=...)`. Remove the move: `device_map={"": 0}`
    places the model.

    ## Fix safety

    Display only: without the cast, adapters and norms keep their dtype, which is not what the code requests.

    ## References

    - https://github.com/bitsandbytes-foundation/bitsandbytes/issues/547
    - https://github.com/huggingface/transformers/issues/38717
    - https://github.com/huggingface/peft/issues/101
    """

    meta: ClassVar[Meta] = Meta(
        code="KB122",
        slug="cast-of-quantized-model",
        severity=Severity.ERROR,
        consequence=Consequence.FAILS,
        since="0.1.0",
    )

    def check_source(self, source: SourceFacts, context: TrainingContext) -> Iterator[Violation]:
        """Yield one violation for each cast of a quantized model on every path that reaches it."""
        yield from self._moves(source)
        for call, steps in source.steps_at(Action.CAST):
            if not all(step.before.kbit and step.before.method == "bitsandbytes" for step in steps):
                continue
            if all(step.detail == "packed" for step in steps):
                yield from self._destroyed(source, call, [step.before for step in steps])
                continue
            wrapped = [step.before.adapters is not None for step in steps]
            if any(wrapped) != all(wrapped) or (call.callee == "bfloat16" and not all(wrapped)):
                continue  # transformers does not refuse bfloat16() on the bare model, and the cast does no harm
            dtype = steps[0].detail
            if all(wrapped) and dtype == "float32":
                continue  # adapters and norms are float32 already, or become float32
            yield self.violation(
                f"the cast to {dtype} goes through to the adapters and norms"
                if all(wrapped)
                else f"a quantized model cannot be cast to {dtype}: transformers raises a ValueError",
                source.at(call),
                surface=Surface.SOURCE,
                severity=Severity.WARNING if all(wrapped) else Severity.ERROR,
                consequence=Consequence.UNSTABLE if all(wrapped) else None,
                evidence={"dtype": dtype},
                fix=Fix("leave the cast out: from_pretrained(..., dtype=...) decides", Safety.DISPLAY),
            )

    def _moves(self, source: SourceFacts) -> Iterator[Violation]:
        moved = list(source.steps_at(Action.MOVE))
        if not moved:
            return
        from kbitlint.upstream.moves import refusal_of  # few scripts move a quantized model

        version = source.versions.get("transformers", "")
        for call, steps in moved:
            bare = all(step.before.method == "bitsandbytes" and step.before.adapters is None for step in steps)
            since = {refusal_of(call.callee, step.before.bits, version) for step in steps} if bare else {""}
            if "" not in since:
                bits = steps[0].before.bits
                yield self.violation(
                    f"transformers {version} refuses to move a {bits}-bit model: a ValueError",
                    source.at(call),
                    surface=Surface.SOURCE,
                    evidence={"transformers": version, "bits": bits, "allowed_since": since.pop()},
                    fix=Fix('leave it out: device_map={"": 0} of from_pretrained places the model', Safety.DISPLAY),
                )

    def _destroyed(self, source: SourceFacts, call: Call, models: list[ModelState]) -> Iterator[Violation]:
        """Yield one violation if a cast gives the packed weights of 4-bit layers another dtype on every path."""
        if all(model.bits == FOUR and model.packed and model.certain for model in models):
            yield self.violation(
                "the cast reaches the packed weights, too, whose bytes are then read as numbers",
                source.at(call),
                surface=Surface.SOURCE,
                evidence={"dtype": str(call.dtype("dtype"))},
                fix=Fix("leave the cast out: from_pretrained(..., dtype=...) decides", Safety.DISPLAY),
            )
