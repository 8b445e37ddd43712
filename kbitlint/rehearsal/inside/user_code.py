"""The syntax of code that runs in a rehearsal: each file is read and parsed once."""

from __future__ import annotations

import ast
import functools
from pathlib import Path


@functools.cache
def nodes_of(file: str) -> tuple[ast.AST, ...]:
    """Return all nodes of a file's syntax tree; none if it cannot be read or is no Python."""
    try:
        return tuple(ast.walk(ast.parse(Path(file).read_bytes())))
    except (OSError, SyntaxError, ValueError, RecursionError):
        return ()
