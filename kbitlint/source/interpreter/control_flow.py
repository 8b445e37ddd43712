"""The exceptions that end a block of statements of a file."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import ast

    from kbitlint.source.interpreter.objects import Object


class PathEnd(Exception):  # noqa: N818  # control flow, not an error
    """The end of a path: ``sys.exit()``, or an exception that the script does not catch."""


class Returned(Exception):  # noqa: N818  # control flow, not an error
    """A ``return`` statement, with the value that the function returns and its expression."""

    def __init__(self, value: Object, node: ast.expr | None) -> None:
        self.value = value
        self.node = node


class LoopLeft(Exception):  # noqa: N818  # control flow, not an error
    """A ``break`` or ``continue`` statement."""
