"""Attributes that a script reads of objects of a library, by the class of the object."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING

from kbitlint.facts.own_modules import AttributeUse
from kbitlint.source.bindings import last
from kbitlint.source.nodes import walk
from kbitlint.source.scoped_names import Names, name_of, scopes

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence


def attribute_uses(module: ast.Module, text: str, imports: Sequence[tuple[str, str]]) -> Iterator[AttributeUse]:
    """Yield each read of an attribute of an object whose class is certain, and whose attributes the script does not set.

    Args:
        module: The syntax tree of the script.
        text: Its text.
        imports: Its imports: (full name, local name).
    """
    full = {local: name for name, local in imports}
    stored = {node.attr for node in walk(module) if isinstance(node, ast.Attribute) and not isinstance(node.ctx, ast.Load)}
    starts = [0, *(at + 1 for at, letter in enumerate(text) if letter == "\n")]
    for names in scopes(module, Names):
        owners: dict[str, str] = {}
        for read in names.reads:
            name = name_of(read.value)
            if name not in owners:
                owners[name] = _owner(names.values(name), full)
            owner = owners[name]
            if owner and read.attr not in stored and f'"{read.attr}"' not in text and f"'{read.attr}'" not in text:
                line = read.end_lineno or read.lineno
                yield AttributeUse(owner, read.attr, line, starts[line - 1])


def _owner(values: list[ast.expr | None] | None, full: Mapping[str, str]) -> str:
    """Return the class of the object that a name has in every case; empty if it is not certain."""
    found = {_made(value, full) for value in values or ()}
    return found.pop() if len(found) == 1 else ""


def _made(value: ast.expr | None, full: Mapping[str, str]) -> str:
    """Return the class that a call makes an object of: ``transformers.Trainer``; empty if it is not known."""
    if not isinstance(value, ast.Call) or any(one.arg in (None, "trust_remote_code") for one in value.keywords):
        return ""
    name, of_class = ast.unparse(value.func), last(value) == "from_pretrained"
    first, _, rest = name.partition(".")
    parts = (full.get(first, "") + ("." + rest if rest else "")).split(".")
    if parts[0] not in ("transformers", "trl") or (len(parts) > 2 + of_class and parts[1] != "trainer"):
        return ""
    kind = parts[-1 - of_class]
    if of_class:
        return f"{parts[0]}.{kind}" if kind == "AutoTokenizer" else ""
    return f"{parts[0]}.{kind}" if kind.endswith(("Trainer", "Config", "Arguments")) else ""
