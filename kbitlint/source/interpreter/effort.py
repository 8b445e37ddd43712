"""The steps that the interpreter may take on one path."""

from __future__ import annotations

from kbitlint.lazy_dataclass import dataclass


class TooLong(Exception):  # noqa: N818  # control flow: the interpreter stops following the path
    """A path takes more steps than its budget allows."""


@dataclass(slots=True)
class Effort:
    """The steps that a path may still take; one step is a statement, an expression, or an equal amount of work on values."""

    left: int

    def spend(self, steps: int = 1) -> None:
        """Reduce the budget.

        Raises:
            TooLong: No steps are left.
        """
        self.left -= steps
        if self.left < 0:
            raise TooLong
