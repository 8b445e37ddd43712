"""The turn of a thread with models: one at a time, isolated from the caller's modes, with plain errors."""

from __future__ import annotations

import contextlib
import sys
import threading
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kbitlint.errors import KbitlintError, TargetError, one_line
from kbitlint.runtime.import_state import import_state
from kbitlint.target import SOURCES, parse

if TYPE_CHECKING:
    from collections.abc import Iterator

#: one thread at a time builds, traces or edits models: torch's random state and default dtype, the verbosity of transformers
#: and what stands in for ``from_pretrained`` are the process's own, and threads share them
_MODELS = threading.RLock()


@contextlib.contextmanager
def turn(target: Any) -> Iterator[None]:
    """Run the body as the one thread that works with models, isolated from the caller's modes; scripts need neither.

    Every entry point and the callback do their work in here, whether the target is live or named. A function has its
    own imports in it.

    Raises:
        KbitlintError: The body raised it, or any other exception: models are code of others and may raise anything.
    """
    named = parse(str(target)) if isinstance(target, (str, Path)) else None
    if named is not None and named.kind in SOURCES:
        yield
        return
    imports = import_state(named) if named else contextlib.nullcontext()
    with _MODELS, _plain_errors(target), imports, _isolated():
        yield


@contextlib.contextmanager
def _plain_errors(target: Any) -> Iterator[None]:
    """Raise every exception as a KbitlintError of one line, which names the code that raised it."""
    try:
        yield
    except KbitlintError:
        raise
    except Exception as error:
        frame = traceback.extract_tb(error.__traceback__)[-1]
        name = target if isinstance(target, (str, Path)) else f"the {type(target).__name__}"
        where = f"{frame.name} of {Path(frame.filename).name}"
        raise TargetError(name, f"cannot be worked on: {one_line(error)}, raised in {where}") from error


def _isolated() -> contextlib.AbstractContextManager[None]:
    """The isolation of the model surface; where torch is not imported, the caller has no modes of torch."""
    if "torch" not in sys.modules:
        return contextlib.nullcontext()
    from kbitlint.model.isolation import isolated

    return isolated()
