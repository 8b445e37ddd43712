"""Corrections of inputs that no class documents: their sizes agree with those of the tensors that they meet."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kbitlint.model.inputs.failed_batch import Batch
    from kbitlint.model.inputs.failure import Failure
    from kbitlint.model.inputs.plan import Plan

_OPERAND = re.compile(r"had torch.Size\(\[([\d, ]+)\]\)")
_SIZES = re.compile(r"size|shape|broadcast|dimension|equal|\dD ")
_EXPECTED = re.compile(r"expected (?:at least )?(\d+)")
#: What torch and Python say of a number of dimensions.
_RANKS = (
    re.compile(r"input\.dim\(\) = (?P<had>\d) is not equal to len\(dims\) = (?P<wanted>\d)"),
    re.compile(r"not enough values to unpack \(expected (?P<wanted>\d), got (?P<had>\d)\)"),
    re.compile(r"too many values to unpack \(expected (?P<wanted>\d), got (?P<had>\d)\)"),
    re.compile(r"too many indices for tensor of dimension (?P<had>\d)"),
    re.compile(r"Expected (?P<wanted>\d)-D tensors, but got (?P<had>\d)-D"),
)
_WORDS = re.compile(r"\w+")


def stretched(failure: Failure, plan: Plan, batch: Batch) -> Iterator[Plan]:
    """A layer expects another last dimension than a part, a join or a flattening of an input has: change an input to match."""
    if failure.widths is None or batch.documented:
        return
    had, wanted = failure.widths
    for name in batch.plain:
        shape = batch.shapes[name]
        if name in batch.floats and len(shape) > 1 and shape[-1] != had and shape[-1] + wanted - had > 0:
            yield plan.changed(shapes={name: (*shape[:-1], shape[-1] + wanted - had)})
        for axis in range(1, len(shape)):
            size, rest = divmod(shape[axis] * wanted, had or 1)
            if had and not rest and size != shape[axis]:
                yield plan.changed(shapes={name: (*shape[:axis], size, *shape[axis + 1 :])})


def ranked(failure: Failure, plan: Plan, batch: Batch) -> Iterator[Plan]:
    """A line takes another number of dimensions than an input led to: give one more, or one less."""
    found = None if batch.documented else next((match for one in _RANKS if (match := one.search(failure.message))), None)
    if found is None:
        return
    had, wanted = int(found["had"]), int(found.groupdict().get("wanted") or int(found["had"]) + 1)
    for name in batch.plain:
        shape = batch.shapes[name]
        if len(shape) == had and had < wanted and shape:
            yield plan.changed(shapes={name: (shape[0], *(batch.dimensions.seq_len for _ in range(wanted - had)), *shape[1:])})
        elif len(shape) == had > wanted > 0:
            yield plan.changed(shapes={name: (shape[0], *shape[1 + had - wanted :])})


def agreeing(failure: Failure, plan: Plan, batch: Batch) -> Iterator[Plan]:
    """Two tensors meet whose sizes differ: give an input the size of the other one, or one dimension less."""
    if batch.documented or not _SIZES.search(failure.message):
        return
    words = set(_WORDS.findall(failure.line))
    named = [name for name in batch.plain if name.rpartition(".")[2] in words]
    numbers = [number for number in dict.fromkeys(failure.numbers) if number]
    for text in _OPERAND.findall(failure.message):
        shape = tuple(map(int, re.findall(r"\d+", text)))
        for name in batch.plain:  # an operand that begins with the dimensions of an input, of which one is too many
            if len(own := batch.shapes[name]) > 1 and own == shape[: len(own)]:
                yield plan.changed(shapes={name: (*own[:1], *own[2:])})
    for name in dict.fromkeys([*named, *batch.plain]):
        shape = batch.shapes[name]
        if len(shape) > 1 and name in named:
            yield plan.changed(shapes={name: (*shape[:1], *shape[2:])})
        for axis in range(len(shape)):
            others = [number for number in numbers if shape[axis] in numbers and number != shape[axis]]
            yield from (plan.changed(shapes={name: (*shape[:axis], size, *shape[axis + 1 :])}) for size in others[:3])
    for name in batch.plain:
        if len(shape := batch.shapes[name]) > 1:
            yield plan.changed(shapes={name: (*shape[:1], *shape[2:])})


def counted(failure: Failure, plan: Plan, batch: Batch) -> Iterator[Plan]:
    """``*inputs`` holds another number of inputs than the code unpacks or reads."""
    found = _EXPECTED.search(failure.message)
    several = next((name for name in batch.shapes if name.startswith("*")), "").partition(".")[0]
    if several and ("unpack" in failure.message or "out of range" in failure.message):
        held = len([name for name in batch.shapes if name.startswith(several)])
        yield plan.changed(counts={several: int(found[1]) if found else held + 1})
