"""Reads of attributes on objects of other libraries, whose properties may raise any error."""

from __future__ import annotations

from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from kbitlint.errors import one_line

if TYPE_CHECKING:
    from collections.abc import Iterator

#: (class and attribute, error) of each failed read in the current walk; None outside of a walk.
_UNREAD: ContextVar[dict[tuple[str, str], None] | None] = ContextVar("unread", default=None)


def attribute(owner: Any, name: str, default: Any = None) -> Any:
    """Return an attribute, or the default if it is missing or its property raises."""
    try:
        return getattr(owner, name, default)
    except Exception as error:  # noqa: BLE001  # the walk continues, and reports the failed read
        unread = _UNREAD.get()
        if unread is not None:
            unread[f"{type(owner).__name__}.{name}", one_line(error)] = None
        return default


@contextmanager
def unread_noted() -> Iterator[dict[tuple[str, str], None]]:
    """Record every attribute whose read raises inside the ``with`` statement, once each."""
    unread: dict[tuple[str, str], None] = {}
    token = _UNREAD.set(unread)
    try:
        yield unread
    finally:
        _UNREAD.reset(token)


#: the attribute of a tensor that stands for one created under inference mode, and was itself created outside of it
_STANDS_FOR_INFERENCE = "_kbitlint_inference"


def is_inference(tensor: Any) -> bool:
    """Return whether a tensor was created under ``torch.inference_mode``, so that autograd refuses to save it.

    A new value for its ``data`` makes ``is_inference()`` False. The tensor still has no version counter, which raises.
    """
    if _STANDS_FOR_INFERENCE in tensor.__dict__:  # a walk asks every parameter
        return True
    try:
        return bool(tensor.is_inference()) or tensor._version < 0  # noqa: SLF001  # autograd reads it when it saves the tensor
    except RuntimeError:
        return True


def mark_inference(model: Any) -> None:
    """Let the parameters and buffers of a model count as created under ``torch.inference_mode``.

    A tensor without values that is an inference tensor refuses changes that a real one allows: a cast of its ``data``.
    """
    for tensor in (*model.parameters(), *model.buffers()):
        setattr(tensor, _STANDS_FOR_INFERENCE, True)
