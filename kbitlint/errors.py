"""Every way in which kbitlint cannot do its job, as one clear line.

The CLI prints the line and leaves with exit code 2; the Python API raises the same class.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


class KbitlintError(Exception):
    """kbitlint could not do its job; the message names what, where and what to do."""


class TargetError(KbitlintError):
    """A target that cannot be read, built or run."""

    def __init__(self, target: object, problem: str) -> None:
        super().__init__(f"{target}: {problem}")


class ConfigError(KbitlintError):
    """A key of the configuration that is unknown or has a wrong value."""

    def __init__(self, file: object, key: str, problem: str) -> None:
        super().__init__(f"{file}: {key}: {problem}")


class MissingExtraError(KbitlintError):
    """A package of the extra ``kbitlint[model]`` is needed and not installed."""

    def __init__(self, package: str, purpose: str) -> None:
        super().__init__(f"{purpose} needs {package}, which is not installed: pip install 'kbitlint[model]'")


class SelectionError(KbitlintError):
    """A rule selector that matches no rule."""


class EditError(KbitlintError):
    """An edit that does not fit the model it is applied to."""


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """``"; did you mean 'x'?"`` for the nearest known word, or an empty string."""
    import difflib  # only a misspelt word needs it

    close = difflib.get_close_matches(word, sorted(known), n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


def one_line(error: BaseException) -> str:
    """An exception as one line: its class and the first line of its message."""
    try:
        text = str(error)
    except Exception:  # noqa: BLE001  # the exceptions of others may fail to say what they are
        text = ""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
