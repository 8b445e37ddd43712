"""The stages of a file: the parts that a path follows one after the other. No statement is unfinished between two of them."""

from __future__ import annotations

import ast
import enum
from typing import TYPE_CHECKING

from kbitlint.lazy_dataclass import dataclass

if TYPE_CHECKING:
    from collections.abc import Iterator


class Kind(enum.Enum):
    """The kind of a stage."""

    STATEMENT = "a statement at the top of the file"
    UNUSED = "a function or class that the path may not have used by then"
    METHOD = "a method of such a class"


@dataclass(frozen=True, slots=True)
class Stage:
    """One part of a file."""

    kind: Kind
    statement: ast.stmt


def stages_of(module: ast.Module) -> Iterator[Stage]:
    """Yield the statements of a file, and then its functions and classes, each with its methods."""
    for statement in module.body:
        yield Stage(Kind.STATEMENT, statement)
    for statement in module.body:
        if isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            yield Stage(Kind.UNUSED, statement)
        for item in statement.body if isinstance(statement, ast.ClassDef) else ():
            if isinstance(item, (ast.FunctionDef, ast.AsyncFunctionDef)):
                yield Stage(Kind.METHOD, item)
