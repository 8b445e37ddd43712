"""Methods of files and texts that are passed without a call, to functions that take their result: ``json.loads(f.read)``."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING

from kbitlint.source.nodes import last_name, walk
from kbitlint.source.text.placed_calls import calls

if TYPE_CHECKING:
    from collections.abc import Iterator

#: functions that refuse a method: json, yaml, ast, datasets, and builtins that take a text or its length
_TAKERS = frozenset(("loads", "safe_load", "full_load", "literal_eval", "from_list", "from_dict", "len", "int", "float"))
_OF_FILES = frozenset(("read", "readline", "readlines"))
_OF_TEXTS = frozenset(("strip", "rstrip", "lstrip", "splitlines"))
#: what a text with such an argument contains
SIGNS = tuple(f".{name})" for name in (*_OF_FILES, *_OF_TEXTS))


def passed_methods(module: ast.Module) -> Iterator[ast.Attribute]:
    """Yield each method of an opened file or of a text that a call gets in place of the method's result."""
    nodes = list(walk(module))
    opened = {name for node in nodes for name in _opened(node)}
    for node in nodes:
        given = node.args[0] if isinstance(node, ast.Call) and last_name(node.func) in _TAKERS and node.args else None
        if not isinstance(given, ast.Attribute):
            continue
        of_file = isinstance(given.value, ast.Name) and given.value.id in opened and given.attr in _OF_FILES
        if of_file or (isinstance(given.value, ast.Name) and given.attr in _OF_TEXTS):
            yield given


def _opened(node: ast.AST) -> Iterator[str]:
    """Yield the name that a statement gives to a file that it opens."""
    if isinstance(node, ast.withitem) and calls(node.context_expr, "open") and isinstance(node.optional_vars, ast.Name):
        yield node.optional_vars.id
    elif isinstance(node, ast.Assign) and calls(node.value, "open") and isinstance(node.targets[0], ast.Name):
        yield node.targets[0].id
