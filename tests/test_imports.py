"""The import graph of the product: no circle, imports inside functions and for type checking included."""

from __future__ import annotations

import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = {"kbitlint": "kbitlint", "kbitlint_rules": "rules"}


def modules():
    """Each module of the product by its dotted name."""
    found = {}
    for package, folder in PACKAGES.items():
        for path in (ROOT / folder).rglob("*.py"):
            parts = (package, *path.relative_to(ROOT / folder).with_suffix("").parts)
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imported(tree, known):
    """The modules of the product that a syntax tree imports: ``from a import b`` is ``a.b`` where that is a module."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in known)
        elif isinstance(node, ast.ImportFrom) and node.module:
            places = (f"{node.module}.{alias.name}" for alias in node.names)
            yield from (place if place in known else node.module for place in places if node.module in known)


def graph():
    known = modules()
    trees = {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in known.items()}
    return {name: set(imported(tree, known)) - {name} for name, tree in trees.items()}


def test_no_module_imports_itself_through_others():
    arrows = graph()

    assert len(arrows) > 200
    assert sum(map(len, arrows.values())) > 900
    TopologicalSorter(arrows).prepare()


def test_a_circle_is_found():
    arrows = graph()
    arrows["kbitlint.violation"].add("kbitlint.report")

    with pytest.raises(CycleError):
        TopologicalSorter(arrows).prepare()
