"""Docstrings that kbitlint prints: rule documents and the help of the command line."""

from __future__ import annotations

import functools
import inspect
import sys
from typing import Any


def docstring(documented: Any) -> str:
    """Return the docstring of a class or function without its indentation; empty if it has none.

    ``python -OO`` strips docstrings at compilation. Under it, the docstring is read from the source file.
    """
    if documented.__doc__ or sys.flags.optimize < 2:
        return inspect.cleandoc(documented.__doc__ or "")
    return _in_source(documented)


@functools.cache
def _in_source(documented: Any) -> str:
    import ast  # only python -OO needs it
    import textwrap  # as above

    try:
        definition = ast.parse(textwrap.dedent(inspect.getsource(documented))).body[0]
    except (OSError, TypeError, SyntaxError):  # no source file next to the compiled one
        return ""
    found = ast.get_docstring(definition) if isinstance(definition, (ast.ClassDef, ast.FunctionDef)) else None
    return found or ""
