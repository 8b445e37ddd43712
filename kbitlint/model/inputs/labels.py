"""Labels of a batch, by the head of the class and by what it documents."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from kbitlint.model.inputs.media import float_dtype
from kbitlint.model.inputs.tensors import shape_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from kbitlint.model.inputs.dimensions import Dimensions
    from kbitlint.model.inputs.interface import Argument
    from kbitlint.model.inputs.plan import Plan

_LABEL = re.compile(r"^(labels?|.*_labels?|(start|end)_positions|return_loss)$")
#: Labels of points and boxes that a user has clicked: inputs of the model.
_INPUT = re.compile(r"^input_")
#: Heads with one label for each sample.
_OF_SAMPLES = re.compile(r"(Sequence|Image|Video|Audio)Classification|XVector|MultipleChoice|NextSentencePrediction")
_OF_TOKENS = re.compile(r"TokenClassification")
_OF_VOCABULARY = re.compile(r"LM(Head)?|ConditionalGeneration|Seq2Seq|PreTraining|Text2Text")


def label_names(arguments: Mapping[str, Argument]) -> list[str]:
    """Return the arguments that hold labels, or that ask the model for its loss."""
    return [name for name in arguments if _LABEL.match(name) and not _INPUT.match(name)]


def labels_of(
    base: Any, arguments: Mapping[str, Argument], dimensions: Dimensions, tokens: Tensor, books: int, plan: Plan
) -> dict[str, Any]:
    """Return the labels of a batch.

    Args:
        base: The model, without wrappers.
        arguments: The arguments of its forward.
        dimensions: The dimensions of the batch.
        tokens: The token ids, of shape (batch, sequence).
        books: The number of codebooks, or 0 for a text model.
        plan: The changes of the batch.
    """
    found: dict[str, Any] = {}
    for name in label_names(arguments):
        argument = arguments[name]
        value: Any
        if name == "labels" and name not in plan.shapes and name not in plan.kinds:
            value = _main_labels(type(base).__name__, argument, dimensions, tokens, books)
        else:
            value = _documented(type(base).__name__, argument, dimensions, tokens, plan)
        if value is not None:
            found[name] = _in_the_dtype_of_inputs(value, float_dtype(base))
    return found


def _in_the_dtype_of_inputs(value: Any, dtype: torch.dtype) -> Any:
    """Return labels with their features and masks in the dtype of the inputs, because code mixes them with its outputs."""
    if isinstance(value, list):
        return [_in_the_dtype_of_inputs(item, dtype) for item in value]
    if isinstance(value, dict):
        return {name: _in_the_dtype_of_inputs(item, dtype) for name, item in value.items()}
    return value.to(dtype) if isinstance(value, Tensor) and value.is_floating_point() and value.dim() > 2 else value


def _main_labels(kind: str, argument: Argument, dimensions: Dimensions, tokens: Tensor, books: int) -> Any:
    """Return the value of ``labels``. The names of the common heads tell more than their documentation."""
    if argument.kind == "targets":
        return _targets(argument, dimensions)
    if _OF_SAMPLES.search(kind):
        count = 2 if "MultipleChoice" in kind or "NextSentence" in kind else classes(dimensions.config)
        return torch.randint(0, count, (len(tokens),))
    if _OF_TOKENS.search(kind):
        return torch.randint(0, classes(dimensions.config), tuple(tokens.shape))
    if "CTC" in kind:
        return torch.randint(1, max(_vocabulary(dimensions), 2), (len(tokens), 4))
    if _OF_VOCABULARY.search(kind) and argument.kind == "long":
        return tokens.unsqueeze(-1).repeat(1, 1, books) if books else tokens.clone()
    shape = shape_of(argument, dimensions)
    if shape is None:
        return tokens.clone()
    return _filled(kind, argument, argument.kind, shape, dimensions, tokens)


def _documented(kind: str, argument: Argument, dimensions: Dimensions, tokens: Tensor, plan: Plan) -> Any:
    """Return the value of another label, as it is documented. None if its documentation tells too little."""
    number = plan.kinds.get(argument.name, argument.kind)
    if number == "flag":
        return True
    if number == "targets":
        return _targets(argument, dimensions)
    if number.endswith(" list"):
        height, width = dimensions.image()
        one = (1, height, width) if "mask" in argument.name else (1,)
        return [torch.zeros(one, dtype=torch.long if number == "long list" else torch.float) for _ in range(dimensions.batch)]
    shape = plan.shapes.get(argument.name) or shape_of(argument, dimensions)
    return None if shape is None else _filled(kind, argument, number, shape, dimensions, tokens)


def _filled(
    kind: str, argument: Argument, number: str, shape: tuple[int, ...], dimensions: Dimensions, tokens: Tensor
) -> Tensor:
    if number == "float" or "num_labels" in (argument.shape or ()):  # a score for each class
        return torch.rand(shape)
    if number == "bool":
        return torch.ones(shape, dtype=torch.bool)
    if "position" in argument.name:
        return torch.zeros(shape, dtype=torch.long)
    below = _below(kind, argument, shape, dimensions)
    if shape == tuple(tokens.shape) and below == _vocabulary(dimensions):
        return tokens.clone()
    return torch.randint(0, max(below, 1), shape)


def _below(kind: str, argument: Argument, shape: tuple[int, ...], dimensions: Dimensions) -> int:
    """Return the exclusive upper bound of a label, from its documentation or from its shape."""
    if argument.name != "labels" and len(shape) == 1:
        return 2
    if "num_labels" in argument.text:
        return classes(dimensions.config)
    if "vocab_size" in argument.text:
        return _vocabulary(dimensions)
    by_token = len(shape) > 1 and any("seq" in symbol for symbol in argument.shape or ())
    return _vocabulary(dimensions) if by_token and not _OF_TOKENS.search(kind) else classes(dimensions.config)


def classes(config: Any) -> int:
    """Return the number of classes of a head."""
    return max(int(getattr(config, "num_labels", 2) or 2), 1)


def _vocabulary(dimensions: Dimensions) -> int:
    return dimensions.field(("vocab_size",)) or 2


def _targets(argument: Argument, dimensions: Dimensions) -> list[dict[str, Tensor]]:
    """Return one object for each image: its class, its box, and its mask if the class documents masks."""
    return [dict(_object(argument, dimensions)) for _ in range(dimensions.batch)]


def _object(argument: Argument, dimensions: Dimensions) -> Iterator[tuple[str, Tensor]]:
    yield "class_labels", torch.zeros(1, dtype=torch.long)
    yield "boxes", torch.tensor([[0.5, 0.5, 0.25, 0.25]])
    if "masks" in argument.text:
        yield "masks", torch.ones(1, *dimensions.image())
