"""The facts of a step that raises, where training raises too."""

from __future__ import annotations

import dataclasses
import re
from typing import TYPE_CHECKING

from kbitlint.errors import one_line
from kbitlint.facts.trace import TraceFacts
from kbitlint.model.trace.guard import TouchedError
from kbitlint.model.trace.small_copy import NotBuiltError, TrainsError, error_of_training
from kbitlint.model.trace.step import UntraceableError

if TYPE_CHECKING:
    from torch import nn

    from kbitlint.model.trace.step import StepSettings

#: What operators of torch say of shapes that do not fit each other.
_ABOUT_SHAPES = re.compile(
    r"shapes cannot be multiplied|same reduction dim|invalid for input of size|size of tensor \w must match"
)


def raising(inner: nn.Module, how: StepSettings, error: UntraceableError) -> TraceFacts:
    """Return the facts of a step that raises in training too.

    Raises:
        UntraceableError: The step without weights or its batch is at fault, or it stays open which. The message says so.
    """
    cause = error.__cause__
    if not isinstance(cause, Exception) or isinstance(cause, TouchedError):
        raise error
    tried = dataclasses.replace(how, batch=min(how.context.batch_size or how.batch, how.batch))
    try:
        told = error_of_training(inner, cause, tried)
    except NotBuiltError as reason:
        # the class takes the batch, and no guess made up a shape: the modules of this model do not fit each other
        fits = isinstance(reason, TrainsError) and tried == how
        if not fits or error.guessed or _ABOUT_SHAPES.search(str(cause)) is None:
            raise UntraceableError(f"{error} ({reason})") from cause
        told = cause
    if told is None:
        raise UntraceableError(f"{error} (a small copy with weights raises it too: the batch may not fit the class)") from cause
    return TraceFacts(
        model=how.facts,
        device=how.device,
        autocast=how.context.autocast_dtype,
        batch=(how.batch, how.seq_len),
        gradients=(),
        refusals=(),
        packed_reads=(),
        layers=(),
        promotions=(),
        checkpoint_calls=(),
        saved=(),
        called=frozenset(),
        guesses=(),
        failure=one_line(told),
        failed_at=error.module,
    )
