"""Calls of a library's constructor through a class of the file: ``super().__init__(tokenizer=...)``, ``MyTrainer(...)``."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING

from kbitlint.facts.values import UNKNOWN, Argument, Call
from kbitlint.source.nodes import full_name, walk

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from kbitlint.facts.values import Value
    from kbitlint.source.offsets import Text

_LIBRARIES = ("transformers.", "trl.")
#: ends of the names of classes whose keywords are known
_KINDS = ("Trainer", "Arguments", "Config")
_OWN = ("__init__", "__new__")
#: classes of the file between a class and the library's
_DEEPEST = 12


def base_calls(module: ast.Module, text: Text, imports: Sequence[tuple[str, str]]) -> Iterator[Call]:
    """Yield the calls whose keywords reach the constructor of a class of transformers or TRL as they are written.

    Args:
        module: The syntax tree of the file.
        text: Its text.
        imports: The file's imports: full name, local name.
    """
    nodes = list(walk(module))
    known = {local: full for full, local in imports}
    for node in nodes:
        if isinstance(node, ast.ImportFrom) and node.module and not node.level:
            known |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
    classes = {node.name: node for node in nodes if isinstance(node, ast.ClassDef)}
    for cls in classes.values():
        base = _library_class(cls, known)
        init = _method(cls, "__init__")
        for node in walk(init) if base and init is not None else ():
            if isinstance(node, ast.Call) and _is_inherited(node.func, cls):
                yield _call(base, node, text)
    bases = {name: _inherited(cls, classes, known) for name, cls in classes.items()}
    for node in nodes:
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and bases.get(node.func.id):
            yield _call(bases[node.func.id], node, text)


def _library_class(cls: ast.ClassDef, known: Mapping[str, str]) -> str:
    """Return the class of transformers or TRL that is the only base of a class; empty if it has another one, or several."""
    if len(cls.bases) != 1 or cls.keywords:
        return ""
    name = full_name(ast.unparse(cls.bases[0]), known)
    last = name.rpartition(".")[2]
    return f"{name.partition('.')[0]}.{last}" if name.startswith(_LIBRARIES) and last.endswith(_KINDS) else ""


def _inherited(cls: ast.ClassDef, classes: Mapping[str, ast.ClassDef], known: Mapping[str, str]) -> str:
    """Return the class of a library whose constructor a class inherits; empty if it has one of its own, or fields."""
    for _ in range(_DEEPEST):
        own = any(_method(cls, name) for name in _OWN) or any(isinstance(item, ast.AnnAssign) for item in cls.body)
        if own or cls.decorator_list or len(cls.bases) != 1:
            return ""
        found = _library_class(cls, known)
        base = classes.get(ast.unparse(cls.bases[0]))
        if found or base is None:
            return found
        cls = base
    return ""


def _method(cls: ast.ClassDef, name: str) -> ast.FunctionDef | None:
    return next((item for item in cls.body if isinstance(item, ast.FunctionDef) and item.name == name), None)


def _is_inherited(function: ast.expr, cls: ast.ClassDef) -> bool:
    """Return whether a function is the ``__init__`` of ``super()``, or of the base that the class names."""
    if not isinstance(function, ast.Attribute) or function.attr != "__init__":
        return False
    owner = function.value
    above = isinstance(owner, ast.Call) and isinstance(owner.func, ast.Name) and owner.func.id == "super"
    return above or ast.unparse(owner) == ast.unparse(cls.bases[0])


def _call(callee: str, node: ast.Call, text: Text) -> Call:
    given = [(one.arg, one) for one in node.keywords if one.arg is not None]
    arguments = (Argument(name, _value(one.value), text.span(one.value), text.span(one)) for name, one in given)
    return Call(callee, text.span(node), tuple(arguments), complete=False)


def _value(node: ast.expr) -> Value:
    value = node.value if isinstance(node, ast.Constant) else UNKNOWN
    return value if value is None or isinstance(value, (bool, int, float, str)) else UNKNOWN
