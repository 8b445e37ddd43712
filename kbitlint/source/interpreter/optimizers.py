"""Optimizers that a file creates, and the models whose parameters they receive."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kbitlint import lazy_patterns as re
from kbitlint.source.interpreter.objects import Object, Parameters, Record, Sequence, TrackedModel

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Names of optimizer classes of torch, bitsandbytes, transformers and other libraries.
_NAME = re.compile(
    r"create_lora(plus|fa)_optimizer|(Paged)?(Adam\w*|AdEMAMix|SGD|Lion|Adafactor|RMSprop|Adagrad|LAMB|LARS|Muon)(8bit|32bit)?"
)


def is_optimizer(name: str) -> bool:
    """Return whether the name of a function is that of an optimizer class, or of a function that makes one."""
    return _NAME.fullmatch(name.rpartition(".")[2]) is not None


def optimized(arguments: Record) -> Iterator[TrackedModel]:
    """Yield the models whose parameters an optimizer receives: directly, in a list, or in parameter groups."""
    todo: list[Object] = [given.value for given in arguments.items.values()]
    while todo:
        value = todo.pop()
        if isinstance(value, Parameters):
            yield value.net
        elif isinstance(value, TrackedModel):  # PEFT's own functions take the parameters themselves
            value.hand_out()
            yield value
        elif isinstance(value, Sequence):
            todo += value.values
        elif isinstance(value, Record) and value.callee == "dict":
            todo += [given.value for given in value.items.values()]
