"""Corrections of a batch: from a failed forward, the plans of batches that may run.

A message names a missing argument, or it relates two shapes. Each rule here reads one relation. None knows a model.
"""

from __future__ import annotations

import itertools
import re
from typing import TYPE_CHECKING

from kbitlint.model.inputs.agreement import agreeing, counted, ranked, stretched
from kbitlint.model.inputs.announced import announcing
from kbitlint.model.inputs.entries import entry_of, undocumented
from kbitlint.model.inputs.tensors import shape_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from kbitlint.model.inputs.failed_batch import Batch
    from kbitlint.model.inputs.failure import Failure
    from kbitlint.model.inputs.plan import Plan

Shape = tuple[int, ...]


def corrections(failure: Failure, plan: Plan, batch: Batch) -> Iterator[Plan]:
    """Yield plans that may mend a failure, the likeliest first.

    Args:
        failure: The failure.
        plan: The plan of the batch that failed.
        batch: That batch.
    """
    for rule in _RULES:
        yield from rule(failure, plan, batch)


def _not_twice(failure: Failure, plan: Plan, batch: Batch) -> Iterator[Plan]:  # noqa: ARG001  # the signature of all rules
    """A wrapper passes an argument itself."""
    yield from (plan.changed(without={name}) for name in re.findall(r"multiple values for .*argument '(\w+)'", failure.message))


def _not_both(failure: Failure, plan: Plan, batch: Batch) -> Iterator[Plan]:
    """Two inputs exclude each other, or one is not announced by the other: leave out one."""
    if not re.search(r"both|do not match|at the same time|not supported|unexpected", failure.message):
        return
    named = [name for name in failure.words if name in batch.shapes]
    images = [name for name in batch.shapes if name.startswith("pixel_values")] if "mage" in failure.message else []
    for name in [*reversed(named), *images]:
        yield plan.changed(without={name})


def _missing(failure: Failure, plan: Plan, batch: Batch) -> Iterator[Plan]:
    """The message names arguments that were not passed, or a line used one that was None: pass it."""
    unknown = [name for name in batch.arguments if name not in batch.shapes and name not in plan.without]
    named = [name for name in unknown if name in failure.words]  # a decoder speaks of its own arguments
    named += [name for name in unknown if name.removeprefix("decoder_") in failure.words and name not in named]
    made = [name for name in named if _can_make(batch, name)]
    if made:
        yield plan.changed(given=frozenset(made))
        for name in made:
            yield plan.changed(given={name})
    if "None" in failure.message or failure.kind in ("TypeError", "AttributeError"):
        absent = [name for name in failure.absent if name in unknown and _can_make(batch, name)]
        for name in absent[:4]:
            yield plan.changed(given=frozenset(_related(batch, name)))
            yield plan.changed(given={name})
        if len(absent) > 1:
            yield plan.changed(given=frozenset(absent))


def _related(batch: Batch, name: str) -> Iterator[str]:
    """Yield an argument, and the features and masks that share a dimension of their own with it, such as the visual tokens."""
    common = {"batch_size", "sequence_length", "hidden_size"}
    own = set(batch.arguments[name].shape or ()) - common
    for other, argument in batch.arguments.items():
        shares = own & set(argument.shape or ()) and (argument.kind == "float" or other.endswith("mask"))
        if other == name or (shares and _can_make(batch, other)):
            yield other


def _can_make(batch: Batch, name: str) -> bool:
    argument = batch.arguments[name]
    return (
        not batch.documented
        or argument.kind == "flag"
        or (argument.kind != "other" and shape_of(argument, batch.dimensions) is not None)
    )


def _no_loss(failure: Failure, plan: Plan, batch: Batch) -> Iterator[Plan]:
    """The class computes no loss."""
    if failure.kind == "NotImplementedError" or re.search(r"raining|trainable", failure.message):
        yield plan.changed(without=batch.labels)


def _targets(failure: Failure, plan: Plan, batch: Batch) -> Iterator[Plan]:
    """The loss relates the sizes of its input and its target: give the labels that shape."""
    if "labels" not in batch.shapes:
        return
    samples = batch.dimensions.batch
    found = re.search(r"input batch_size \((\d+)\) to match target batch_size \((\d+)\)", failure.message)
    if found:
        rows = max(int(found.group(1)) // samples, 1)
        classes = getattr(batch.dimensions.config, "num_labels", 2)
        for shape in ((samples, rows), (samples, rows, classes), (samples * rows,)):
            yield plan.changed(shapes={"labels": shape}, kinds={"labels": "long"})
    found = re.search(
        r"arget size \(torch.Size\(\[([\d, ]*)\]\)\) must be .*?same as input size \(torch.Size\(\[([\d, ]*)\]\)",
        failure.message,
    )
    if found:
        yield plan.changed(shapes={"labels": _shape(found.group(2))}, kinds={"labels": "float"})
    others = {
        shape[1]
        for name, shape in batch.shapes.items()
        if name.endswith("mask") and len(shape) == 2 and name != "attention_mask"
    }
    for length in sorted(others) if "length" in failure.message else ():  # tokens of text, and those of another input
        yield plan.changed(shapes={"labels": (samples, batch.dimensions.seq_len + length)}, kinds={"labels": "long"})
    if failure.in_loss:
        for kind in ("float", "long"):
            yield plan.changed(kinds={"labels": kind})


def _numbers(failure: Failure, plan: Plan, batch: Batch) -> Iterator[Plan]:
    """A kernel takes no integers: labels that are numbers, or sound in place of text."""
    if "can require gradients" in failure.message:
        sounds = [name for name in batch.floats if len(batch.shapes[name]) == 2]
        yield from (plan.changed(kinds={n: "float"}, shapes={n: (batch.dimensions.batch, 16000)}) for n in sounds)
    if re.search(r"long int|\bLong\b|int64", failure.message):
        integers = [name for name in sorted(batch.labels) if batch.arguments[name].kind == "long"]
        yield from (plan.changed(kinds=dict.fromkeys(some, "float")) for some in (integers, *([name] for name in integers)))
        features = [name for name, shape in batch.shapes.items() if len(shape) > 2 and batch.arguments[name].kind == "long"]
        yield from (plan.changed(kinds={name: "float"}) for name in features if name not in batch.labels)


def _shape(text: str) -> Shape:
    return tuple(int(number) for number in re.findall(r"\d+", text))


def _last_dimension(failure: Failure, plan: Plan, batch: Batch) -> Iterator[Plan]:
    """A linear layer or a norm expects another last dimension."""
    if failure.widths is None:
        return
    had, wanted = failure.widths
    for name in batch.floats:
        shape = batch.shapes[name]
        if len(shape) == 3 and shape[-1] == wanted and shape[-2] * shape[-1] == had:  # code flattens all but the samples
            yield plan.changed(shapes={name: (shape[0], wanted)})
        if len(shape) < 2 or shape[-1] != had:
            continue
        if len(shape) < 4:
            yield plan.changed(shapes={name: (*shape[:-1], wanted)})
        if shape[-2] == wanted:
            yield plan.changed(shapes={name: (*shape[:-2], had, wanted)})
        rows = batch.dimensions.patches() if name.startswith("pixel") else 16
        yield plan.changed(shapes={name: (shape[0], rows, wanted) if len(shape) > 2 else (shape[0], wanted)})
        yield plan.changed(shapes={name: (rows, wanted)})


def _channels(failure: Failure, plan: Plan, batch: Batch) -> Iterator[Plan]:
    """A convolution expects another number of channels."""
    found = re.search(r"weight of size \[[\d, ]+\], expected input\[([\d, ]+)\] to have (\d+) channels", failure.message)
    if found is None:
        return
    seen, wanted = _shape(found.group(1)), int(found.group(2))
    for name in batch.floats:
        shape = batch.shapes[name]
        if len(shape) == 2 and "feature" in name:  # a spectrogram that is documented as sound
            yield plan.changed(shapes={name: (shape[0], 128, batch.dimensions.of("feature_dim", name))})
        if wanted in shape[2:]:  # the channels come last
            at = shape.index(wanted, 2)
            yield plan.changed(shapes={name: (shape[0], wanted, *shape[1:at], *shape[at + 1 :])})
        if len(shape) >= 3 and sorted(shape) == sorted(seen):
            yield plan.changed(shapes={name: (shape[0], wanted, *shape[2:])})
            yield plan.changed(shapes={name: (shape[0], *shape[2:], wanted)})
        if len(shape) >= 3 and shape[-3:] == seen[-3:]:
            yield plan.changed(shapes={name: (*shape[:-3], wanted, *shape[-2:])})


def _rank(failure: Failure, plan: Plan, batch: Batch) -> Iterator[Plan]:
    """The line that raised takes an input apart into another number of dimensions."""
    found = re.search(r"unpack \(expected (\d)|Expected (\d)D|(\d)D tensor|ordering of dimensions", failure.message)
    if found is None:
        return
    wanted = next((int(number) for number in found.groups() if number), None)
    for name in batch.floats:
        shape = batch.shapes[name]
        if name not in failure.line and "unpack" in failure.message:
            continue
        if len(shape) == 2 and "conv2d" in failure.message:  # the rows of patches are images of their own
            edges = batch.dimensions.pair("patch_size", 14)
            yield plan.changed(shapes={name: (shape[0], max(shape[1] // (edges[0] * edges[1]), 1), *edges)})
        for changed in (
            (shape[0], 1, *shape[1:]),
            (shape[0], batch.dimensions.of("num_frames"), *shape[1:]),
            (shape[0], 2, *shape[1:]),
            (shape[0], *shape[2:]),
        ):
            if len(changed) == (wanted or len(shape) + 1):
                yield plan.changed(shapes={name: changed})


def _image_size(failure: Failure, plan: Plan, batch: Batch) -> Iterator[Plan]:
    """An image does not have the size that the class expects, or is too small for its strides."""
    if "NoneType" in failure.message:
        return
    if not any(name.startswith(("pixel", "input_masks")) for name in batch.shapes):
        yield from _undocumented_image_size(failure, plan, batch) if not failure.in_loss else ()
        return
    height = batch.dimensions.image()[0]
    if re.search(r"mage.{0,30}size|height|width", failure.message):
        for size in dict.fromkeys(failure.numbers):
            if size >= 8 and size != height:
                yield plan.changed(dimensions={"image_size": size})
    for size in (64, 128, 224, 256):
        if size > height and not failure.in_loss:
            yield plan.changed(dimensions={"image_size": size})


def _undocumented_image_size(failure: Failure, plan: Plan, batch: Batch) -> Iterator[Plan]:
    """An image under any name does not have the size that the module expects, or is too small for its strides."""
    for name in batch.floats:
        *outer, height, width = batch.shapes[name] if len(batch.shapes[name]) == 4 else (0, 0)
        for size in dict.fromkeys([*failure.numbers, 64, 128, 224, 256] if outer else ()):
            if 8 <= size <= 1024 and size not in (height, width):
                yield plan.changed(shapes={name: (*outer, size, size)})


def _length(failure: Failure, plan: Plan, batch: Batch) -> Iterator[Plan]:
    """A sequence does not have the length that the class expects, or is too short for its strides."""
    if "NoneType" in failure.message or failure.in_loss:
        return
    config = batch.dimensions.config
    sequence = batch.dimensions.seq_len
    fields = ("max_position_embeddings", "max_length", "block_size", "chunk_size", "context_length", "prediction_length")
    longest = [value for name in fields if isinstance(value := getattr(config, name, None), int)]
    if re.search(r"size|length|match|shape|out of range|out of bounds", failure.message):
        named = [number for number in failure.numbers if 1 < number <= 512]
        for length in dict.fromkeys([*(number for number in longest if number <= 2048), *named, 64, 4, 1]):
            if length != sequence:
                yield plan.changed(seq_len=length)


def _grow(failure: Failure, plan: Plan, batch: Batch) -> Iterator[Plan]:
    """A kernel is larger than its input: a longer sound or spectrogram."""
    if not re.search(r"[Kk]ernel size|too small|at least|non-?zero|greater than|Padding size", failure.message):
        return
    for name in batch.floats:
        shape = batch.shapes[name]
        if len(shape) >= 2 and not name.startswith("pixel"):
            at = max(range(1, len(shape)), key=lambda index: shape[index])
            for factor in (8, 64):
                yield plan.changed(shapes={name: (*shape[:at], min(shape[at] * factor, 64000), *shape[at + 1 :])})


def _multiple(failure: Failure, plan: Plan, batch: Batch) -> Iterator[Plan]:
    """A length is no multiple of another number in the message."""
    if "multiple" not in failure.message and "divisible" not in failure.message:
        return
    for name in batch.floats:
        shape = batch.shapes[name]
        for at, unit in itertools.product(range(1, len(shape)), dict.fromkeys(failure.numbers)):
            if shape[at] in failure.numbers and unit > 1 and shape[at] % unit:
                yield plan.changed(shapes={name: (*shape[:at], -(-shape[at] // unit) * unit, *shape[at + 1 :])})


def _drop_labels(failure: Failure, plan: Plan, batch: Batch) -> Iterator[Plan]:
    """The loss raised and no shape of the labels is known to mend it: the step trains the mean of the output."""
    if failure.in_loss and batch.labels:
        yield plan.changed(without=batch.labels)


_RULES: tuple[Callable[[Failure, Plan, Batch], Iterator[Plan]], ...] = (
    _no_loss,
    _not_twice,
    announcing,
    _not_both,
    _missing,
    entry_of,
    _targets,
    _numbers,
    _last_dimension,
    stretched,
    _channels,
    counted,
    ranked,
    agreeing,
    _rank,
    _multiple,
    _grow,
    _image_size,
    _length,
    undocumented,
    _drop_labels,
)
