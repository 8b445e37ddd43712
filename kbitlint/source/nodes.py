"""Walks over syntax trees, several times as fast as those of ``ast``. Names of nodes.

They leave out contexts and operators, and a node keeps what is inside it: trees are walked a dozen times, and never changed.
"""

from __future__ import annotations

import ast
import functools
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

#: Fields that hold contexts, operators, names or constants.
_PLAIN = frozenset({"ctx", "op", "ops", "id", "attr", "arg", "name", "asname", "module", "level", "kind", "type_comment"})
#: Classes of most nodes, with none inside.
_LEAVES = frozenset({ast.Name, ast.Constant, ast.alias})
#: The attribute in which a node keeps the nodes inside it.
_KEPT = "_children"


@functools.cache
def _fields(kind: type[ast.AST]) -> tuple[str, ...]:
    """Return the fields of a class of nodes that may hold further nodes."""
    return tuple(name for name in kind._fields if name not in _PLAIN)


def children(node: ast.AST) -> tuple[ast.AST, ...]:
    """Return the nodes directly inside a node in the order of its fields, without contexts and operators."""
    if type(node) in _LEAVES:
        return ()
    known: tuple[ast.AST, ...] | None = vars(node).get(_KEPT)
    return _read(node) if known is None else known


def _read(node: ast.AST) -> tuple[ast.AST, ...]:
    found: list[ast.AST] = []
    for name in _fields(type(node)):  # type: ignore[arg-type]  # a class can be hashed
        value = getattr(node, name, None)
        if type(value) is list:
            found += [item for item in value if isinstance(item, ast.AST)]
        elif isinstance(value, ast.AST):
            found.append(value)
    vars(node)[_KEPT] = made = tuple(found)
    return made


def walk(node: ast.AST) -> Iterator[ast.AST]:
    """Yield a node and all nodes inside it breadth first, without contexts and operators."""
    todo = [node]
    for one in todo:
        yield one
        todo += children(one)


def last_name(function: ast.AST) -> str:
    """Return the last part of the name that an expression is: ``map`` of ``data.map``; empty if it is none."""
    return function.attr if isinstance(function, ast.Attribute) else function.id if isinstance(function, ast.Name) else ""


def full_name(written: str, imports: Mapping[str, str]) -> str:
    """Return the full name of a dotted name as a file writes it.

    Args:
        written: The name: ``hf.Trainer``.
        imports: The file's imports: local name -> full name.
    """
    first, _, rest = written.partition(".")
    return imports.get(first, first) + ("." + rest if rest else "")


def library_name(name: str) -> str:
    """Return the full name of a class with its library alone.

    >>> library_name("trl.experimental.orpo.ORPOTrainer"), library_name("transformers.Trainer")
    ('trl.ORPOTrainer', 'transformers.Trainer')
    """
    library, _, rest = name.partition(".")
    return f"{library}.{rest.rpartition('.')[2]}" if rest else name


def is_trainer(name: str) -> bool:
    """Return whether a full name is that of a Trainer of transformers or TRL."""
    return name.startswith(("transformers.", "trl.")) and name.endswith("Trainer")


def line_offset(text: str, line: int) -> int:
    """Return the offset at which a line of a text starts; the first line is 1."""
    return sum(len(one) + 1 for one in text.split("\n", line - 1)[: line - 1])
