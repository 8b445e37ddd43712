"""Optimizers that a file makes itself, and the models whose parameters they are given."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from kbitlint.source.interpreter.objects import Object, Parameters, Record, Sequence, TrackedModel

if TYPE_CHECKING:
    from collections.abc import Iterator

#: of torch, bitsandbytes, transformers and others
_NAME = re.compile(r"(Paged)?(Adam\w*|AdEMAMix|SGD|Lion|Adafactor|RMSprop|Adagrad|LAMB|LARS|Muon)(8bit|32bit)?")


def is_optimizer(name: str) -> bool:
    """Whether a function's name is that of an optimizer's class."""
    return _NAME.fullmatch(name.rpartition(".")[2]) is not None


def optimized(arguments: Record) -> Iterator[TrackedModel]:
    """The models whose parameters an optimizer is made of: given as they are, in a list, or in groups."""
    todo: list[Object] = [given.value for given in arguments.items.values()]
    while todo:
        value = todo.pop()
        if isinstance(value, Parameters):
            yield value.net
        elif isinstance(value, Sequence):
            todo += value.values
        elif isinstance(value, Record) and value.callee == "dict":
            todo += [given.value for given in value.items.values()]
