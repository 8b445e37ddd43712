"""Imports inside functions, found in the text around a place."""

from __future__ import annotations


def imported_around(text: str, offset: int, module: str) -> bool:
    """Return whether the function around an offset imports a module under its own name, in a line above.

    Args:
        text: The source text.
        offset: A place in it.
        module: The name: ``torch``.
    """
    lines = text[: text.find("\n", offset) + 1 or None].split("\n")[:-1] or [text]
    left = _indent(lines[-1])
    for line in reversed(lines[:-1]):
        if not line.strip() or _indent(line) > left:
            continue
        left = _indent(line)
        if left and line.partition("#")[0].split() == ["import", module]:
            return True
    return False


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())
