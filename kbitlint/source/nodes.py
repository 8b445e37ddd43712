"""Walks over syntax trees, twice as fast as those of ``ast``: they leave out contexts and operators. Names of nodes."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

#: Fields that hold contexts, operators, names or constants.
_PLAIN = frozenset({"ctx", "op", "ops", "id", "attr", "arg", "name", "asname", "module", "level", "kind", "type_comment"})
#: The fields of each class that may hold further nodes.
_FIELDS: dict[type[ast.AST], tuple[str, ...]] = {}


def _fields(kind: type[ast.AST]) -> tuple[str, ...]:
    found = _FIELDS[kind] = tuple(name for name in kind._fields if name not in _PLAIN)
    return found


def children(node: ast.AST) -> list[ast.AST]:
    """Return the nodes directly inside a node in the order of its fields, without contexts and operators."""
    kind = type(node)
    found: list[ast.AST] = []
    for name in _FIELDS.get(kind) or _fields(kind):
        value = getattr(node, name, None)
        if type(value) is list:
            found += [item for item in value if isinstance(item, ast.AST)]
        elif isinstance(value, ast.AST):
            found.append(value)
    return found


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
