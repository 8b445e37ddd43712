"""The files that a result depends on: each question about the file system, with a digest of its answer.

A result that was kept holds as long as each question has the same answer. ``content.py`` asks all of them.
"""

from __future__ import annotations

import contextlib
import enum
import functools
import os
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

Answer = TypeVar("Answer")
Function = TypeVar("Function", bound="Callable[..., Any]")


class Question(enum.Enum):
    """The kind of a question."""

    BYTES = "bytes"
    HEAD = "head"
    IS_FILE = "is file"
    EXISTS = "exists"
    GLOB = "glob"


Asked = tuple[Question, str, "int | str"]
"""A question, the path that it is about, and its argument."""
Observations = dict[Asked, str]
"""The digest of the answer to each question."""
_OPEN: ContextVar[Observations | None] = ContextVar("observations", default=None)


def observing(question: Question, path: Path, argument: Any, ask: Callable[[Path, Any], Answer]) -> Answer:
    """Return the answer to a question, and record it for the result that is being observed, if there is one.

    Raises:
        OSError: The question raised it; the error is recorded as the answer.
    """
    seen = _OPEN.get()
    if seen is None:
        return ask(path, argument)
    asked = (question, str(path), argument)
    try:
        answer = ask(path, argument)
    except (OSError, ValueError) as error:
        seen.setdefault(asked, _failed(error))
        raise
    seen.setdefault(asked, digest(answer))
    return answer


def answer_now(path: Path, argument: Any, ask: Callable[[Path, Any], Any]) -> str:
    """Return the digest of the answer that a question has now."""
    try:
        return digest(ask(path, argument))
    except (OSError, ValueError) as error:
        return _failed(error)


def digest(answer: Any) -> str:
    """Return a digest of bytes, of a yes or no, or of a list of paths."""
    if isinstance(answer, bool):
        return str(answer)
    import hashlib  # only an audit whose result is kept needs it

    data = answer if isinstance(answer, bytes) else "\0".join(map(str, answer)).encode("utf-8", "surrogatepass")
    return hashlib.blake2b(data, digest_size=16).hexdigest()


def _failed(error: Exception) -> str:
    return f"{type(error).__name__} {getattr(error, 'errno', None)}"


@contextlib.contextmanager
def observed() -> Iterator[Observations]:
    """Record the questions that the code inside asks; a context around it records them too."""
    seen: Observations = {}
    outer = _OPEN.get()
    token = _OPEN.set(seen)
    try:
        yield seen
    finally:
        _OPEN.reset(token)
        if outer is not None:
            for asked, answer in seen.items():
                outer.setdefault(asked, answer)


def _working_folder() -> str:
    """Return the working folder; empty if it was deleted."""
    try:
        return os.getcwd()  # noqa: PTH109  # every script asks, and a Path takes ten times as long
    except OSError:
        return ""


def remembered(maxsize: int | None) -> Callable[[Function], Function]:
    """Keep the results of a function of files as ``lru_cache`` does; a kept result repeats the questions that it asked.

    Without that, the second script that names a checkpoint would seem not to depend on its files. Results belong to the
    working folder, because names and paths may be relative to it.
    """

    def decorate(function: Function) -> Function:
        @functools.lru_cache(maxsize)
        def kept(recorded: bool, working: str, *arguments: Any) -> tuple[Any, Observations]:  # noqa: ARG001, FBT001  # keys
            if not recorded:  # most audits keep no result, and need no digests
                return function(*arguments), {}
            with observed() as seen:
                return function(*arguments), seen

        @functools.wraps(function)
        def asking(*arguments: Any) -> Any:
            outer = _OPEN.get()
            result, seen = kept(outer is not None, _working_folder(), *arguments)
            if outer is not None:
                for asked, answer in seen.items():
                    outer.setdefault(asked, answer)
            return result

        asking.cache_clear = kept.cache_clear  # type: ignore[attr-defined]  # as lru_cache has it
        return asking  # type: ignore[return-value]  # of the same signature

    return decorate
