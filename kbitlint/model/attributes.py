"""Reads attributes of other people's objects, which may raise anything."""

from __future__ import annotations

from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from kbitlint.errors import one_line

if TYPE_CHECKING:
    from collections.abc import Iterator

#: (class and attribute, what reading it raised) of the walk that is under way
_UNREAD: ContextVar[dict[tuple[str, str], None] | None] = ContextVar("unread", default=None)


def attribute(owner: Any, name: str, default: Any = None) -> Any:
    """Return an attribute, or the default where there is none or reading it raises: properties run any code."""
    try:
        return getattr(owner, name, default)
    except Exception as error:  # noqa: BLE001  # the walk goes on and names what it could not read
        unread = _UNREAD.get()
        if unread is not None:
            unread[f"{type(owner).__name__}.{name}", one_line(error)] = None
        return default


@contextmanager
def unread_noted() -> Iterator[dict[tuple[str, str], None]]:
    """Note every attribute whose reading raises in the body, once each."""
    unread: dict[tuple[str, str], None] = {}
    token = _UNREAD.set(unread)
    try:
        yield unread
    finally:
        _UNREAD.reset(token)
