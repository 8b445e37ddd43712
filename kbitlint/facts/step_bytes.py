"""An estimate of the memory of a training step, from facts of the model alone.

``kbitlint memory`` measures a step, which takes seconds for a large model. Rules need to know whether a cost matters, and
this estimate is within a quarter of the measured peak for Llama shapes from 1 to 8 billion parameters.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from kbitlint.facts.dtypes import LOW_PRECISION
from kbitlint.lazy_dataclass import dataclass

if TYPE_CHECKING:
    from kbitlint.facts.model import ModelFacts
    from kbitlint.facts.source import SourceFacts
    from kbitlint.facts.values import Call

#: the batch of ``kbitlint memory`` where the context has none: sequences, tokens
DEFAULT_BATCH = (1, 2048)
#: of a violation that costs memory: a warning from this share of the peak on
WARN_FROM = 0.1
_WIDE = 4
_INDEX = re.compile(r"(?<=\.)\d+(?=\.)")
#: copies of the logits in float32 at the peak: the logits, their softmax, their gradient
_LOGITS = 3
#: bytes that a layer saves for the backward pass, by the bytes of its products' outputs; measured on Llama shapes
_SAVED_BY_OUTPUT = 1.7
#: the share of them that half precision saves; measured as above
_SAVED_BY_HALF = 0.27


@dataclass(frozen=True, slots=True)
class StepBytes:
    """Bytes of a step whose residual stream is float32."""

    peak: int
    stream: int
    """The bytes that a stream in half precision saves: stored inputs of layers, or activations."""
    cast: int
    """The bytes of the half-precision copies that autocast makes of float32 heads."""


def step_bytes(model: ModelFacts, batch: tuple[int | None, int | None], autocast: str | None) -> StepBytes:
    """Return the estimate for AdamW.

    Args:
        model: The facts of the model.
        batch: (sequences, tokens a sequence); None for one sequence, or for 2048 tokens.
        autocast: The dtype of the autocast region; None if there is none, or it is not known.
    """
    tokens = (batch[0] or DEFAULT_BATCH[0]) * (batch[1] or DEFAULT_BATCH[1])
    shapes = {parameter.path: parameter for parameter in model.parameters}
    embeddings = [shapes[path] for path in (f"{item.path}.weight" for item in model.embeddings) if path in shapes]
    heads = [shapes[path] for path in (f"{item.path}.weight" for item in model.heads) if path in shapes]
    if any(not item.task and f"{item.path}.weight" not in shapes for item in model.heads):
        heads += embeddings[:1]  # the output embedding shares the weight of the input embedding
    hidden = max((weight.shape[-1] for weight in embeddings if len(weight.shape) == 2), default=0)
    vocabulary = max((weight.shape[0] for weight in heads if len(weight.shape) == 2 and not weight.packed), default=0)
    layers = _outputs_by_layer(model)
    activations = len(layers) * tokens * hidden * _WIDE
    stream = activations // 2
    if not model.checkpointing:
        activations = int(_SAVED_BY_OUTPUT * sum(layers.values()) * tokens * _WIDE)
        stream = int(_SAVED_BY_HALF * activations)
    head, layer = _LOGITS * tokens * vocabulary * _WIDE, 2 * max(layers.values(), default=0) * tokens * _WIDE
    resident = sum(parameter.nbytes for parameter in model.parameters)
    trained = sum(3 * parameter.nbytes for parameter in model.trainable)  # its gradient and AdamW's two moments
    casts = autocast in LOW_PRECISION
    cast = sum(weight.numel * 2 for weight in heads if weight.dtype == "float32" and not weight.requires_grad) if casts else 0
    return StepBytes(max(1, resident + trained + activations + max(head, layer) + cast), stream, cast)


def tokens_of_step(source: SourceFacts, prepared: Call, batch: tuple[int | None, int | None]) -> int:
    """Return the tokens of a step of the smallest training of a model that a script has prepared by a call.

    Args:
        source: The facts of the script.
        prepared: The call that prepared the model.
        batch: (sequences, tokens a sequence) of the context, which counts before the script; None where it has none.
    """
    paths = [path for trained in source.trained() for path in trained.paths if path.model.prepared == prepared]
    steps = [
        (batch[0] or _given(path.arguments, "per_device_train_batch_size") or DEFAULT_BATCH[0])
        * (batch[1] or _given(path.arguments, "max_length", "max_seq_length") or DEFAULT_BATCH[1])
        for path in paths
    ]
    return min(steps, default=(batch[0] or DEFAULT_BATCH[0]) * (batch[1] or DEFAULT_BATCH[1]))


def _given(arguments: Call | None, *names: str) -> int | None:
    """Return the first of these arguments that is a positive number; None if none is."""
    values = (arguments.value(name) for name in names) if arguments is not None else ()
    return next((value for value in values if isinstance(value, int) and value > 0), None)


def _outputs_by_layer(model: ModelFacts) -> dict[str, int]:
    """Return the output features of the quantized products of each layer.

    Of the experts of a mixture two are counted, as many as most routers choose.
    """
    features: dict[str, dict[str, int]] = {}
    for layer in model.quantized:
        index = _INDEX.search(layer.path)
        if index is None or layer.packing.features is None:
            continue
        name = layer.path[: index.end()]
        inner, experts = _INDEX.subn("*", layer.path[index.end() :])
        features.setdefault(name, {})[inner] = layer.packing.features[1] * (2 if experts else 1)
    return {name: sum(products.values()) for name, products in features.items()}


def is_cast_after_loading(model: ModelFacts) -> bool:
    """Return whether the parameters look as PEFT's ``prepare_model_for_kbit_training`` leaves them.

    The model was loaded in half precision, and none of its frozen parameters outside adapters and packed weights is half.
    """
    left = [p for p in model.parameters if p.floating and not (p.packed or p.adapter or p.requires_grad or p.held)]
    return model.dtype in LOW_PRECISION and bool(left) and {p.dtype for p in left} == {"float32"}
