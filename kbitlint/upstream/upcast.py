"""The bytes that PEFT's preparation adds to a checkpoint: it casts every weight that is not packed to float32."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kbitlint.lazy_dataclass import dataclass
from kbitlint.upstream import families
from kbitlint.upstream.hub_names import stored_quantized

if TYPE_CHECKING:
    from kbitlint.facts.model_state import ModelState
    from kbitlint.upstream.families import Known

#: the smallest vocabulary that a script's finding is about
_VOCABULARY = 100_000
#: bytes of float32 experts beyond those of 16 bits that fit no GPU of 80 GB beside the rest
_LARGE = 40e9
#: the share of the parameters of a model with experts that its stacked experts hold
_OF_EXPERTS = 0.95
_EIGHT_BITS = 8
#: bytes of a packed parameter with the scales of its blocks, in 4 and in 8 bits
_PACKED = {False: 0.56, True: 1.05}
#: parameters of a block of a transformer, by the square of its hidden size: attention and a gated layer
_BLOCK = 12
#: copies of the logits in float32 at the peak, as in ``facts/step_bytes.py``
_LOGITS, _WIDE = 3, 4
#: ends of the names of classes whose head has no row for each token
_NO_VOCABULARY = ("ForTokenClassification", "ForSequenceClassification", "ForQuestionAnswering", "AutoModel")


@dataclass(frozen=True, slots=True)
class Cost:
    """What a preparation costs: bytes beyond those in half precision."""

    checkpoint: str
    what: str
    extra: int
    share: float
    """The share of the peak of a training step, as far as the name tells it."""
    experts: int = 0
    """The bytes of stacked experts among them."""

    @property
    def fits_no_gpu(self) -> bool:
        """Return whether the experts alone exceed what a GPU of 80 GB holds."""
        return self.experts > _LARGE


def cost_of_cast(model: ModelState, tokens: int, *, five: bool) -> Cost | None:
    """Return the cost of casting a model's unquantized weights to float32; None if its family does not tell it.

    Args:
        model: The model before the preparation.
        tokens: The tokens of a step.
        five: Whether transformers 5 loads the model, which stacks experts.
    """
    if model.method != "bitsandbytes" or model.dtype == "float32":
        return None  # nothing is packed, or nothing is left to cast
    name = model.load.value("pretrained_model_name_or_path") if model.load is not None else None
    known = families.facts_of(name, model.named)
    if known.dtype == "float32" or not isinstance(name, str):
        return None
    architecture = known.architecture
    if five and architecture is not None and architecture.experts and known.billions and not stored_quantized(name):
        experts = int(known.billions * 1e9 * _OF_EXPERTS * 2)
        return Cost(name, "stacked experts", experts, 1.0, experts)
    if known.vocabulary < _VOCABULARY or not known.hidden or not known.billions:
        return None
    headless = model.load is not None and model.load.callee.rpartition(".")[0].endswith(_NO_VOCABULARY)
    alone = known.tied or headless
    extra = known.vocabulary * known.hidden * 2 * (1 if alone else 2)
    what = "embeddings" if alone else "embeddings and head"
    return Cost(name, what, extra, extra / _peak(known, extra, tokens, eight=model.bits == _EIGHT_BITS, logits=not headless))


def _peak(known: Known, extra: int, tokens: int, *, eight: bool, logits: bool) -> float:
    """Return the peak of a step with checkpoints after the cast, in bytes, from the size in a checkpoint's name.

    It is within a fifth of ``step_bytes``, which knows the layers.
    """
    packed = max(0.0, known.billions * 1e9 - extra / 2)
    blocks = packed / (_BLOCK * known.hidden**2)
    stored = blocks * tokens * known.hidden * _WIDE
    step = _LOGITS * tokens * known.vocabulary * _WIDE if logits else 2 * _BLOCK * known.hidden * tokens * _WIDE
    return packed * _PACKED[eight] + 2 * extra + stored + step
