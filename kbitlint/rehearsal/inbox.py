"""Messages of a rehearsal as they arrive. The script can write into their pipe, so that only data of this program is taken."""

from __future__ import annotations

import dataclasses
import enum
import io
import pickle
from typing import Any

from kbitlint.errors import KbitlintError
from kbitlint.facts.rehearsal import Raised, Stall
from kbitlint.rehearsal.messages import Done, Exit, Measured, Missing, Note, Received, Training
from kbitlint.result import Skip

#: the most bytes of one message: a report on a large model has some megabytes
_LARGEST = 2**28
#: classes of Python that messages are made of
_PLAIN = frozenset(
    (
        *(("builtins", name) for name in ("set", "frozenset", "complex", "bytearray", "range", "slice")),
        *(("pathlib", name) for name in ("PosixPath", "PurePosixPath", "Path", "PurePath")),
        *(("collections", name) for name in ("OrderedDict", "Counter")),
    )
)


class ForeignMessageError(Exception):
    """Bytes that are no message of a rehearsal."""


class _Reader(pickle.Unpickler):
    """A reader of pickles that makes plain data, and dataclasses and enumerations of this program, and calls nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        """Return a class of a message.

        Raises:
            ForeignMessageError: The pickle names anything else.
        """
        if (module, name) in _PLAIN:
            return super().find_class(module, name)
        found = super().find_class(module, name) if module.startswith("kbitlint.") and "." not in name else None
        known = isinstance(found, type) and (dataclasses.is_dataclass(found) or issubclass(found, enum.Enum))
        if not known or found.__module__ != module:
            raise ForeignMessageError(f"{module}.{name}")
        return found


def take(data: bytes, received: Received) -> bytes:
    """Take the whole messages out of the data, and return the rest. A message follows its length, 8 bytes.

    Raises:
        ForeignMessageError: The data hold anything else.
        KbitlintError: kbitlint itself failed in the rehearsal.
    """
    while len(data) >= 8:
        length = int.from_bytes(data[:8], "big")
        if length > _LARGEST:
            raise ForeignMessageError(f"{length} bytes")
        if len(data) < 8 + length:
            break
        _keep(read(data[8 : 8 + length]), received)
        data = data[8 + length :]
    return data


def read(data: bytes) -> Any:
    """Return a message.

    Raises:
        ForeignMessageError: The data are none.
    """
    try:
        return _Reader(io.BytesIO(data)).load()
    except ForeignMessageError:
        raise
    except Exception as error:  # a damaged pickle raises anything
        raise ForeignMessageError(type(error).__name__) from error


#: the class of a message -> the list that takes it
_LISTS = {Note: "notes", Skip: "skips", Training: "trainings", Measured: "measured", Stall: "stalls"}


def _keep(message: Any, received: Received) -> None:
    name = _LISTS.get(type(message))
    if name is not None:
        getattr(received, name).append(message)
    elif isinstance(message, Missing):
        received.missing.append(message.path)
    elif isinstance(message, Exit):
        received.exit = message
    elif isinstance(message, Done):
        received.done, received.whole = True, message.whole
    elif isinstance(message, Raised):
        received.raised = message
    elif isinstance(message, str):
        raise KbitlintError(message)
    else:
        raise ForeignMessageError(type(message).__name__)
