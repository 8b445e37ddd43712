"""Errors of kbitlint, each with a message of one line.

The CLI prints the line and exits with code 2; the Python API raises the same class. Nothing here imports kbitlint.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


class KbitlintError(Exception):
    """An error that stops kbitlint. The message names the problem, its place and the remedy."""


class TargetError(KbitlintError):
    """An error in a target that cannot be read, built or run."""

    def __init__(self, target: object, problem: str) -> None:
        super().__init__(f"{target}: {problem}")
        self.problem = problem


class UnreachableError(TargetError):
    """An error in a target that is no folder, and as a Hub id neither in the cache nor reachable."""


class ConfigError(KbitlintError):
    """An error in a key of the configuration: it is unknown or has a wrong value."""

    def __init__(self, file: object, key: str, problem: str) -> None:
        super().__init__(f"{file}: {key}: {problem}")


class MissingExtraError(KbitlintError):
    """A missing package of an extra, such as ``kbitlint[model]``."""

    def __init__(self, package: str, purpose: str, extra: str = "model") -> None:
        super().__init__(f"{purpose} needs {package}, which is not installed: pip install 'kbitlint[{extra}]'")


class SelectionError(KbitlintError):
    """An error in a rule selector that matches no rule."""


class EditError(KbitlintError):
    """An error in an edit that does not fit its model."""


_OF_LIBRARY = "kbitlint_of_library"


def as_library(error: BaseException) -> BaseException:
    """Return an exception, marked as the one that a library raises where kbitlint's code runs in its place."""
    setattr(error, _OF_LIBRARY, True)
    return error


def is_of_library(error: BaseException) -> bool:
    """Return whether a library raises an exception that kbitlint's code raised in its place."""
    return getattr(error, _OF_LIBRARY, False) is True


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return ``"; did you mean 'x'?"`` for the nearest known word, or an empty string."""
    import difflib  # only a misspelt word needs it

    close = difflib.get_close_matches(word, sorted(known), n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


def message_of(error: BaseException) -> str:
    """Return the message of an exception, with a question mark for each sign that cannot be written; none if it has none."""
    try:
        return str(error).encode("utf-8", "replace").decode("utf-8")
    except Exception:  # noqa: BLE001  # ``__str__`` of another library's exception may raise
        return ""


def one_line(error: BaseException) -> str:
    """Return an exception as one line: its class and the first line of its message."""
    text = message_of(error)
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if (
        len(lines) > 1 and lines[0].endswith("(") and lines[-1].startswith(")")
    ):  # the text of a module, as Python names a callee
        lines[0] += f"...{lines[-1]}"
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
