"""Keeps the building of a stranger's config from reaching the network, other files and other programs.

Libraries act on what a config says: they fetch models that it names, unpickle files, import modules, start compilers.
While a config is built, one audit hook (PEP 578) refuses those acts. It sees what Python does; native code that opens
files by itself shows no event, so keys that hand it a path are refused before (``kbitlint.files.config_keys``).
"""

from __future__ import annotations

import functools
import sys
import threading
import weakref
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from kbitlint.errors import TargetError
from kbitlint.runtime.acts import JUDGES, NETWORK, Reach, is_library, reach_of, text_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from types import FrameType


class RefusedError(PermissionError):
    """An act that a config may not ask for. Libraries that can do without it treat it like any refused access."""


@dataclass(frozen=True, slots=True, eq=False)
class Confinement:
    """Who asks, and what may be read meanwhile."""

    asked_by: str
    """The file of the config, or the Hub id."""
    reach: Reach
    """What may be read and run."""
    entered: FrameType | None
    """Where it was entered: what is above it on the stack is not its business."""
    threads: weakref.WeakSet[threading.Thread] = field(default_factory=weakref.WeakSet)
    """Threads that were started meanwhile; they stay confined for as long as they live."""


#: what applies to the code that runs here: None where nothing was decided, False where it was lifted
_CURRENT: ContextVar[Confinement | bool | None] = ContextVar("kbitlint_confinement", default=None)
#: every confinement in force, in any thread; the hook looks no further while there is none
_IN_FORCE: list[Confinement] = []


@contextmanager
def confined(asked_by: object, *places: str | Path) -> Iterator[None]:
    """Refuse the network, processes, and files outside of folders to what runs in this context.

    Threads that are started inside are confined too, other threads are not. Reading the packages of Python stays allowed.

    Args:
        asked_by: The file of the config that is built, or the Hub id; named where an act is refused.
        places: Files that may be read, and folders whose files may be.

    Raises:
        TargetError: What runs failed because of a refused act; the message names the file and the act.
    """
    _install()
    within = sys._getframe(2)  # noqa: SLF001  # the function with the ``with``: above is this generator and contextlib
    confinement = Confinement(str(asked_by), reach_of(*places), within)
    _IN_FORCE[:] = [one for one in _IN_FORCE if one in _entered or any(thread.is_alive() for thread in one.threads)]
    _IN_FORCE.append(confinement)
    _entered.add(confinement)
    token = _CURRENT.set(confinement)
    try:
        yield
    except Exception as error:
        refused = refusal_in(error)
        if refused is None or isinstance(error, RefusedConfigError):
            raise
        raise RefusedConfigError(confinement.asked_by, str(refused)) from error
    finally:
        _CURRENT.reset(token)
        _entered.discard(confinement)
        if not any(thread.is_alive() for thread in confinement.threads):
            _IN_FORCE.remove(confinement)


#: the confinements whose ``with`` block is not left yet
_entered: set[Confinement] = set()


class RefusedConfigError(TargetError):
    """A config whose building needs an act that was refused."""


@contextmanager
def lifted() -> Iterator[None]:
    """Let what runs here do as it likes: code that the user chose, and not the config."""
    token = _CURRENT.set(False)
    try:
        yield
    finally:
        _CURRENT.reset(token)


def refusal_in(error: BaseException) -> RefusedError | None:
    """Return the refused act that led to an exception, None where none did."""
    seen: set[int] = set()
    found: BaseException | None = error
    while found is not None and id(found) not in seen:
        if isinstance(found, RefusedError):
            return found
        seen.add(id(found))
        found = found.__cause__ or found.__context__
    return None


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    if not _IN_FORCE:
        return
    judge = JUDGES.get(event)
    confinement = None if judge is None else _confinement()
    if judge is None or confinement is None:
        return
    act = judge(confinement.reach, *arguments)
    if act is not None and (event in NETWORK or not _importing(confinement)):
        raise RefusedError(f"a model that is built from a config may not {act} (unless you pass --trust-remote-code)")


def _importing(confinement: Confinement) -> bool:
    """Return whether a library is just being imported: what it does then, it does for every config.

    A refusal would leave it half imported. The network is refused even then.
    """
    frame: FrameType | None = sys._getframe(2)  # noqa: SLF001  # what the judges refuse is rare
    while frame is not None and frame is not confinement.entered:
        if frame.f_code.co_name == "exec_module" and frame.f_code.co_filename.startswith("<frozen importlib"):
            place = text_of(getattr(frame.f_locals.get("self"), "path", None))  # None: a module of the interpreter itself
            if place is None or is_library(confinement.reach, place):
                return True
        frame = frame.f_back
    return False


def _confinement() -> Confinement | None:
    """Return what confines the code that runs here: this context's own, or that of the thread's start."""
    current = _CURRENT.get()
    if current is None:
        thread = threading.current_thread()
        return next((one for one in _IN_FORCE if thread in one.threads), None)
    return current if isinstance(current, Confinement) else None


@functools.cache
def _install() -> None:
    """Add the hook, once: Python has no way to remove one. Threads are marked as they start: before 3.12 no event tells."""
    start = threading.Thread.start

    @functools.wraps(start)
    def marked(thread: threading.Thread) -> None:
        confinement = _confinement() if _IN_FORCE else None
        if confinement is not None:
            confinement.threads.add(thread)
        start(thread)

    threading.Thread.start = marked  # type: ignore[method-assign,assignment]  # the same function, wrapped
    sys.addaudithook(_hook)
