"""The turn of a thread with models: one at a time, isolated from the caller's modes, with plain errors."""

from __future__ import annotations

import contextlib
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from kbitlint.errors import KbitlintError, TargetError, one_line
from kbitlint.runtime.import_state import import_state
from kbitlint.target import SOURCES, Target

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kbitlint.audit.options import Options

#: One thread at a time builds, traces or edits models. The process has one random state and one default dtype of torch, one
#: verbosity of transformers and one replacement of ``from_pretrained``, and its threads share them.
_MODELS = threading.RLock()


@contextlib.contextmanager
def turn(target: Target, options: Options | None = None) -> Iterator[None]:
    """Run the body as the one thread that works with models, isolated from the caller's modes; scripts need neither.

    Every entry point and the callback do their work inside, for live and for named targets. A function is imported into
    an import state of its own.

    Args:
        target: The target.
        options: The options, whose batch the steps of the body take. None, or options without one, leave it to be made.

    Raises:
        KbitlintError: The body raised it, or any other exception: models are code of others and may raise anything.
    """
    if target.kind in SOURCES:
        yield
        return
    with _MODELS, plain_errors(target), import_state(target), _isolated(), _given(options):
        yield


@contextlib.contextmanager
def _given(options: Options | None) -> Iterator[None]:
    if options is None or (options.inputs is None and options.step is None):
        yield
        return
    from kbitlint.model.inputs.supplied import supplied  # loads torch, which a target without a batch may not need yet

    with supplied(options.inputs, options.step, is_exact=True):
        yield


@contextlib.contextmanager
def plain_errors(target: Target) -> Iterator[None]:
    """Raise every exception as a KbitlintError of one line, which names the code that raised it."""
    try:
        yield
    except KbitlintError:
        raise
    except Exception as error:
        import traceback  # only an exception needs it

        frame = traceback.extract_tb(error.__traceback__)[-1]
        name = target.text or f"the {type(target.live).__name__}"
        where = f"{frame.name} of {Path(frame.filename).name}"
        raise TargetError(name, f"cannot be worked on: {one_line(error)}, raised in {where}") from error


def _isolated() -> contextlib.AbstractContextManager[None]:
    """Return the isolation of the model surface; if torch is not imported, the caller has set none of its modes."""
    if "torch" not in sys.modules:
        return contextlib.nullcontext()
    from kbitlint.model.isolation import isolated  # imports torch

    return isolated()
