"""Confinement of model building: an untrusted config cannot reach the network, other files or other programs.

Libraries act on the content of a config: they fetch models, unpickle files, import modules, start compilers. While a
config is built, one audit hook (PEP 578) refuses such acts. The hook receives only events of Python code. Native
code opens files without an event, so ``kbitlint.files.config_keys`` rejects keys that contain a path for it.
"""

from __future__ import annotations

import functools
import sys
import threading
import weakref
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import field
from typing import TYPE_CHECKING, Any

from kbitlint.errors import TargetError
from kbitlint.lazy_dataclass import dataclass
from kbitlint.runtime.acts import JUDGES, NETWORK, Reach, is_library, reach_of, text_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from types import FrameType


class RefusedError(PermissionError):
    """A refused act. Libraries treat it like any missing permission, and some continue without it."""


@dataclass(frozen=True, slots=True, eq=False)
class Confinement:
    """One confinement: the config that is built and the paths that may be read."""

    asked_by: str
    """The file of the config, or the Hub id."""
    reach: Reach
    """The paths that may be read and the code that may run."""
    entered: FrameType | None
    """The frame that entered the confinement. Its callers are not confined."""
    threads: weakref.WeakSet[threading.Thread] = field(default_factory=weakref.WeakSet)
    """Threads that were started inside. They stay confined until they end."""


#: the confinement of the running code: None if none was set in this context, False if it was lifted
_CURRENT: ContextVar[Confinement | bool | None] = ContextVar("kbitlint_confinement", default=None)
#: all active confinements of all threads; the hook returns at once while the list is empty
_IN_FORCE: list[Confinement] = []


@contextmanager
def confined(asked_by: object, *places: str | Path) -> Iterator[None]:
    """Refuse network access, processes, and files outside some folders to the code inside the context.

    Threads started inside are confined too; other threads are not. Python's packages stay readable.

    Args:
        asked_by: The file of the config that is built, or the Hub id; part of the message of a refusal.
        places: Readable files, and folders whose files are readable.

    Raises:
        TargetError: If the code failed because of a refused act. The message names the config and the act.
    """
    _install()
    within = sys._getframe(2)  # noqa: SLF001  # the function with the ``with``: frames 0 and 1 are this generator and contextlib
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


#: confinements whose ``with`` block is still active
_entered: set[Confinement] = set()


class RefusedConfigError(TargetError):
    """An error in a config that needs a refused act to be built."""


@contextmanager
def lifted() -> Iterator[None]:
    """Lift the confinement for code that the user chose, as opposed to the config."""
    token = _CURRENT.set(False)
    try:
        yield
    finally:
        _CURRENT.reset(token)


def refusal_in(error: BaseException) -> RefusedError | None:
    """Return the refused act in the causes of an exception; None if there is none."""
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
    """Return whether a library is being imported. Its acts do not depend on the config.

    A refusal would leave the library half imported. Network access is refused even then.
    """
    frame: FrameType | None = sys._getframe(2)  # noqa: SLF001  # runs only for acts that the judges refuse, which are rare
    while frame is not None and frame is not confinement.entered:
        if frame.f_code.co_name == "exec_module" and frame.f_code.co_filename.startswith("<frozen importlib"):
            place = text_of(getattr(frame.f_locals.get("self"), "path", None))  # None: a module of the interpreter itself
            if place is None or is_library(confinement.reach, place):
                return True
        frame = frame.f_back
    return False


def _confinement() -> Confinement | None:
    """Return the confinement of the running code: that of this context, or else that of its thread."""
    current = _CURRENT.get()
    if current is None:
        thread = threading.current_thread()
        return next((one for one in _IN_FORCE if thread in one.threads), None)
    return current if isinstance(current, Confinement) else None


@functools.cache
def _install() -> None:
    """Add the hook and mark threads at their start, once per process.

    Python has no way to remove an audit hook. Before Python 3.12 no audit event reports the start of a thread.
    """
    start = threading.Thread.start

    @functools.wraps(start)
    def marked(thread: threading.Thread) -> None:
        confinement = _confinement() if _IN_FORCE else None
        if confinement is not None:
            confinement.threads.add(thread)
        start(thread)

    threading.Thread.start = marked  # type: ignore[method-assign,assignment]  # a wrapper of the same function
    sys.addaudithook(_hook)
