"""The import graph of the product, imports inside functions and for type checking included: no circle, no arrow up."""

from __future__ import annotations

import ast
import re
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


def layers():
    """The number of the layer of each room, 0 at the top, as the contract of import-linter has them."""
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    rows = ast.literal_eval(
        re.search(r'containers = \["kbitlint"\]\nexhaustive = true\nlayers = (\[.*?\n\])', text, re.DOTALL)[1]
    )
    return {room.strip(): number for number, row in enumerate(rows) for room in row.split("|")}


def upward(arrows):
    """Each arrow from a room of kbitlint to one above it, or to another one of its own layer."""
    known = layers()
    for module, targets in arrows.items():
        for target in sorted(targets):
            (package, room, *_), (other, there, *_) = (f"{name}.".split(".") for name in (module, target))
            if package == other == "kbitlint" and room and there and room != there and known[there] <= known[room]:
                yield module, target


def test_no_import_leads_upwards():
    arrows = graph()
    rooms = {name.split(".")[1] for name in arrows if name.startswith("kbitlint.")}

    assert set(layers()) == rooms
    assert list(upward(arrows)) == []


def test_an_arrow_that_leads_upwards_or_sideways_is_found():
    arrows = graph()
    arrows["kbitlint.audit.run"].add("kbitlint.fixes.preview")
    arrows["kbitlint.facts.source"].add("kbitlint.context.training")

    assert sorted(upward(arrows)) == [
        ("kbitlint.audit.run", "kbitlint.fixes.preview"),
        ("kbitlint.facts.source", "kbitlint.context.training"),
    ]


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


def unexplained(text):
    """The lines of imports inside functions that give no reason; a module docstring may give one for all of them."""
    tree = ast.parse(text)
    if re.search(r"^Imports of .* are inside ", ast.get_docstring(tree) or "", re.MULTILINE):
        return []
    lines = text.splitlines()
    functions = [node for node in ast.walk(tree) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))]
    inside = {
        node.lineno for function in functions for node in ast.walk(function) if isinstance(node, (ast.Import, ast.ImportFrom))
    }
    reason = re.compile(r"#(?! noqa).*[a-z]|# noqa: \w+  # ")
    return [lines[number - 1].strip() for number in sorted(inside) if not reason.search(lines[number - 1])]


def test_each_import_inside_a_function_gives_its_reason():
    found = {name: unexplained(path.read_text(encoding="utf-8")) for name, path in modules().items()}

    assert {name: lines for name, lines in found.items() if lines} == {}


def test_an_import_without_a_reason_is_found():
    text = "def f():\n    import a\n    import b  # takes a second\n    import c  # noqa: F401\n"

    assert unexplained(text) == ["import a", "import c  # noqa: F401"]
    assert unexplained(f'"""A module.\n\nImports of a are inside functions: they load torch.\n"""\n{text}') == []
