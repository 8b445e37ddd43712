"""The state of one pass over a file, and the ways in which a pass is left."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kbitlint.source.interpreter.objects import Object


class PathEnd(Exception):  # noqa: N818  # not an error: the script leaves here
    """The script ends: ``sys.exit()``, or an exception that nothing catches."""


class Returned(Exception):  # noqa: N818  # no error
    """A function's value on its way out."""

    def __init__(self, value: Object) -> None:
        self.value = value


class LoopLeft(Exception):  # noqa: N818  # no error
    """``break`` or ``continue``."""
